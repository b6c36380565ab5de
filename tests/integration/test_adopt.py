"""Adopting results folders by command: killed and gone on with, and served like any tracked run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clearml_state import ClearML
from command_line import CommandLine
from killed_runs import kill_in_step
from results_folders import copied, with_checkpoints

from tao2serve.sandbox.samples import PROJECT, SAMPLE, pictures

pytestmark = pytest.mark.integration

ADOPTED = "street-detector-adopted"
# What a tracked and an adopted model of the same files must have in common.
SAME = ("name", "epoch", "epoch_source", "mean_average_precision", "metric_source", "metric_note", "average_precision",
        "pruned", "fetchable", "framework", "task_status")  # fmt: skip


@pytest.fixture(scope="module")
def unpruned(sandbox: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """A run adopted by a command that was killed in its second upload, and run again: what was whole then, and now."""
    folder = with_checkpoints(
        copied("unpruned", tmp_path_factory.mktemp("runs") / "unpruned"), (8, 14), pad_bytes=16 << 20
    )
    command = ("adopt", folder, "--project", ADOPTED, "--task", "street_train", "--tag", "resnet10",
               "--checkpoints", "all")  # fmt: skip
    kill_in_step(sandbox, "upload model.epoch-14.hdf5 (2 of 3)", *command, after_s=0.1)
    clearml = ClearML(sandbox)
    whole = [model["id"] for model in _models(clearml) if not model["uri"].endswith("uploading_file")]
    return whole, sandbox.tao2serve(*command, "--json").assert_success().document


def _task(clearml: ClearML) -> dict[str, Any]:
    """The one task of the unpruned run."""
    (task,) = [task for task in clearml.tasks(type=["training"]) if task["name"].startswith("street_train_")]
    return task


def _models(clearml: ClearML) -> list[dict[str, Any]]:
    """The models of its task, whole or not."""
    return clearml.call("models.get_all", task=[_task(clearml)["id"]], page_size=500, page=0)["models"]


def test_a_killed_adoption_is_gone_on_with(sandbox: CommandLine, unpruned: tuple[list[str], dict[str, Any]]) -> None:
    """After a SIGKILL in an upload the same command sends the rest: one task, each model once, each point once."""
    whole, document = unpruned
    clearml = ClearML(sandbox)
    models = _models(clearml)
    assert len(whole) >= 1
    assert len(models) == len(document["models"]) == 3
    assert {model["id"] for model in models} == {model["model_id"] for model in document["models"]}
    assert set(whole) <= {model["id"] for model in models}, "what had arrived was sent again"
    assert not any(model["upload"] for model in document["models"] if model["model_id"] in whole)
    task = _task(clearml)
    assert (task["id"], task["status"]) == (document["task_id"], "completed")
    points = clearml.call(
        "events.get_task_events", task=task["id"], event_type="training_stats_scalar", batch_size=5000
    )
    told = [(event["metric"], event["iter"]) for event in points["events"]]
    assert len(told) == len(set(told)) == 56


def test_an_adopted_run_is_what_a_tracked_one_is(
    sandbox: CommandLine, unpruned: tuple[list[str], dict[str, Any]], tmp_path: Path
) -> None:
    """The sample's runs, tracked and adopted: the same epochs, precisions, classes and lineage; and it deploys."""
    pruned = copied("pruned", tmp_path / "pruned")
    retrained = sandbox.tao2serve(
        "adopt", pruned, "--project", ADOPTED, "--task", "street_retrain", "--tag", "resnet10", "--json"
    ).assert_success().document  # fmt: skip
    assert retrained["outcome"] == "ok"
    found = sandbox.tao2serve("models", "--json").assert_success().document["models"]
    for name in ("resnet10_street", "resnet10_street_pruned"):
        tracked, adopted = ({m["project"]: m for m in found if m["name"] == name}[p] for p in (PROJECT, ADOPTED))
        assert {key: adopted[key] for key in SAME} == {key: tracked[key] for key in SAME}
        for link in ("parent_task_name", "input_models"):
            assert _shape(adopted["lineage"][link]) == _shape(tracked["lineage"][link]), link
        for said in ("pretrained_model_file", "load_graph"):
            assert adopted["lineage"][said] == tracked["lineage"][said]
    deployed = sandbox.tao2serve(
        "deploy", "--project", ADOPTED, "--tag", "resnet10", "--endpoint", "adopted", "--image", pictures()[0], "--json"
    ).assert_success().document  # fmt: skip
    assert deployed["source"]["model_id"] == retrained["models"][0]["model_id"]
    assert deployed["source"]["task_id"] == retrained["task_id"]


def _shape(link: Any) -> Any:
    """A link without what must differ: ids, places, the names that were given to the runs."""
    if isinstance(link, str):
        return link.partition("_")[2].rpartition("_")[2] if link else link
    return [item["name"] for item in link]


def test_models_are_compared_by_name(
    sandbox: CommandLine, unpruned: tuple[list[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Two runs by PROJECT/TASK and a file: measured here, drawn, and a ClearML task links to the models."""
    pruned = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"))
    told = sandbox.tao2serve(
        "models", "--compare", f"{ADOPTED}/street_train", f"{PROJECT}/detectnet_v2_retrain", pruned,
        "--measure-time", "100ms", "-o", tmp_path / "compared", "--json",
    ).assert_success().document  # fmt: skip
    assert [model["name"] for model in told["models"]] == [
        "resnet10_street", "resnet10_street_pruned", "resnet10_street_pruned",
    ]  # fmt: skip
    first, second, third = told["models"]
    assert first["task_id"] == unpruned[1]["task_id"]
    assert (second["parameters"], second["file_bytes"]) == (third["parameters"], third["file_bytes"])
    assert second["average_precision"] == third["average_precision"]
    assert all(
        model["speed"]["latency_ms"] > 0 and model["speed"]["throughput_images_per_s"] > 0 for model in told["models"]
    )
    assert (tmp_path / "compared" / "compare.html").stat().st_size > 4e6
    clearml = ClearML(sandbox)
    (task,) = clearml.tasks(id=[told["reported_to"]])
    assert (task["type"], task["status"]) == ("testing", "completed")
    linked = {item["model"]["id"] for item in task["models"]["input"]}
    assert linked == {first["model_id"], second["model_id"]}
    plots = clearml.call("events.get_task_plots", task=task["id"])["plots"]
    assert {plot["variant"] for plot in plots} == {"side by side", "accuracy over latency"}
    assert [artifact["key"] for artifact in task["execution"]["artifacts"]] == ["compare.html"]
