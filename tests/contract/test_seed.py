"""The seeded runs, read back as the real SDK and the API show them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tao2serve.sandbox.samples import LOCAL_PROJECT, PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("embedded")]
MAP = "mean average precision (mAP) (in %)"
# The table behind an evaluation: its epoch, then its mean average precision in percent.
EVALUATION = re.compile(
    r"^Epoch (\d+)/\d+\n=+\n\nValidation cost: [\d.]+\nMean average_precision \(in %\): ([\d.]+)$", re.M
)


@pytest.fixture(scope="module")
def seeded(
    tmp_path_factory: pytest.TempPathFactory, module_server: Callable[[Path], Any], module_client: Callable[..., Any]
) -> Iterator[Any]:
    """A server of its own that holds the seeded runs, and what the seed said of them."""
    folder = tmp_path_factory.mktemp("seed")
    with module_server(folder) as server:
        addresses = {"TAO2SERVE_SANDBOX_SERVING": "http://127.0.0.1:1/", "TAO2SERVE_SANDBOX_TRITON": "127.0.0.1:2"}
        done = subprocess.run(
            [sys.executable, "-m", "tao2serve.sandbox.seed", str(folder / "seed.json")],
            env={**module_client(server, folder), **addresses}, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        yield server, json.loads((folder / "seed.json").read_text())
        server.assert_answered()


def tasks_of(server: Any, project: str) -> list[dict[str, Any]]:
    """Return the tasks of a project, oldest first."""
    (found,) = server.call("projects.get_all", name=f"^{project}$", only_fields=["id"])["projects"]
    tasks: list[dict[str, Any]] = server.call("tasks.get_all", project=[found["id"]], order_by=["created"])["tasks"]
    return tasks


def console(server: Any, task: str) -> str:
    """Return a task's whole console log."""
    events = server.call("events.get_task_log", task=task, batch_size=1000, order="asc")["events"]
    return "\n".join(event["msg"] for event in events)


def test_console_and_scalars_tell_the_same_precision(seeded: Any) -> None:
    """Each evaluation stands in the console log in percent, and as a ratio at the step behind its epoch's last."""
    server, known = seeded
    for run, epochs in zip(known["runs"], (16, 10), strict=True):
        task = server.call("tasks.get_by_id", task=run["task_id"])["task"]
        log = console(server, task["id"])
        printed = {int(epoch): float(score) for epoch, score in EVALUATION.findall(log)}
        assert list(printed) == list(range(2, epochs + 1, 2))
        assert f"Epoch {epochs - 1}/{epochs}: loss: " in log
        assert "DetectNet_v2 training job complete." in log
        curve = server.call("events.scalar_metrics_iter_histogram", task=task["id"])[MAP][MAP]
        steps = task["last_iteration"] // epochs
        assert curve["x"] == [epoch * steps for epoch in printed]
        assert curve["y"] == pytest.approx([score / 100 for score in printed.values()])


def test_histograms_and_pictures_are_there(seeded: Any) -> None:
    """Every convolution has a histogram of its weights; the pictures download and have the network's size."""
    server, known = seeded
    for run in known["runs"]:
        plots = server.call("events.get_task_plots", task=run["task_id"])["plots"]
        titles = {plot["metric"] for plot in plots}
        assert titles == {"histogram_weight", "histogram_gamma", "histogram_beta"}
        assert {"conv1", "output_cov"} <= {plot["variant"] for plot in plots if plot["metric"] == "histogram_weight"}
        shown = server.call("events.debug_images", metrics=[{"task": run["task_id"], "metric": "image"}])["metrics"]
        events = shown[0]["iterations"][0]["events"]
        assert {event["variant"].rpartition("_")[0] for event in events} == {"images_image", "labelled_boxes_image"}
        for event in events:
            answer = httpx.get(event["url"], auth=server.keys, timeout=10)
            with Image.open(io.BytesIO(answer.content)) as picture:
                assert picture.size == (384, 224)


def test_the_retraining_names_what_it_came_from(seeded: Any) -> None:
    """The pruned run has the unpruned one as parent and its model as input."""
    server, known = seeded
    trained, retrained = known["runs"]
    task = server.call("tasks.get_by_id", task=retrained["task_id"])["task"]
    assert task["parent"] == trained["task_id"]
    assert [entry["model"] for entry in task["models"]["input"]] == [trained["model_id"]]
    assert [entry["model"] for entry in task["models"]["output"]] == [retrained["model_id"]]


def test_one_run_was_never_uploaded(seeded: Any) -> None:
    """The local run is as TAO's hook leaves it: aborted, no artifacts, checkpoints that are paths of its container."""
    server, _ = seeded
    (task,) = tasks_of(server, LOCAL_PROJECT)
    assert task["status"] == "stopped"
    assert task["execution"]["artifacts"] == []
    models = server.call("models.get_all", task=[task["id"]], order_by=["name"])["models"]
    folder = "file:///workspace/tao-experiments/street_detector"
    assert [model["uri"] for model in models] == [f"{folder}/model.epoch-4.hdf5", f"{folder}/model.epoch-8.hdf5"]
    printed = EVALUATION.findall(console(server, task["id"]))
    assert printed[-1] == ("8", "98.4739")
    assert "complete" not in console(server, task["id"])
    assert len(tasks_of(server, PROJECT)) == 2
