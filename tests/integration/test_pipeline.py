"""`pipeline` and `watch` against the sandbox: ClearML's own controller and trigger scheduler, run here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine, Outcome

from tao2serve.pipeline.request import STEPS
from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration
PICTURES = pictures()[0].parent if pictures() else Path("missing")
ENDPOINT = "piped"
BEFORE_THE_GATE = STEPS[: STEPS.index("loadtest")]


def _call(command_line: CommandLine, endpoint: str, **params: Any) -> Any:
    keys = (command_line.environment["CLEARML_API_ACCESS_KEY"], command_line.environment["CLEARML_API_SECRET_KEY"])
    url = f"{command_line.environment['CLEARML_API_HOST']}/{endpoint}"
    return httpx.post(url, json=params, auth=keys, trust_env=False).json()["data"]


def _task(command_line: CommandLine, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = _call(command_line, "tasks.get_by_id", task=task_id)["task"]
    return task


def _pipeline(command_line: CommandLine, *arguments: str) -> Outcome:
    return command_line.tao2serve(
        "pipeline", "--project", "street-detector", "--endpoint", ENDPOINT, "--canary", "25", "--gate-images", PICTURES,
        "--gate-time", "1s", "--users", "1", "--json", *arguments,
    )  # fmt: skip


def _models(command_line: CommandLine) -> dict[str, dict[str, Any]]:
    """The trained models of the sample's project, by name."""
    (project,) = _call(command_line, "projects.get_all", name="^street-detector$")["projects"]
    models = _call(command_line, "models.get_all", project=[project["id"]])["models"]
    return {model["name"]: model for model in models if model["uri"].startswith("http")}


def _told(document: dict[str, Any], member: str) -> dict[str, Any]:
    return {one["step"]: one[member] for one in document["pipeline"]}


@pytest.fixture(scope="module")
def served(sandbox: CommandLine) -> Iterator[CommandLine]:
    """A sandbox whose endpoint has a version already, of the other model; it is removed with this module."""
    unpruned = _models(sandbox)["resnet10_street"]["id"]
    sandbox.tao2serve("deploy", unpruned, "--endpoint", ENDPOINT).assert_success()
    yield sandbox
    sandbox.tao2serve("undeploy", ENDPOINT, "--all").assert_success()


@pytest.fixture(scope="module")
def missed(served: CommandLine) -> Outcome:
    """A pipeline whose load gate nothing can hold."""
    return _pipeline(served, "--slo", "p99=0.01ms")


@pytest.fixture(scope="module")
def resumed(served: CommandLine, missed: Outcome) -> Outcome:
    """The same pipeline with a gate that holds, tried again where the machine was too busy to judge."""
    for _ in range(3):
        outcome = _pipeline(served, "--slo", "p99=9s")
        if "not judged" not in outcome.stdout:
            break
    return outcome.assert_success()


def test_a_missed_gate_stops_the_pipeline(served: CommandLine, missed: Outcome) -> None:
    """Exit 8 with what was missed; the steps before it are done, and the version has the canary's share, no more."""
    document = missed.document
    assert (missed.code, document["step"]) == (8, "loadtest")
    assert "p99=0.01ms was missed by" in document["error"]["evidence"]
    assert _told(document, "status") == dict.fromkeys(BEFORE_THE_GATE, "done") | {
        "loadtest": "not run", "promote": "not run",
    }  # fmt: skip
    assert "version 2 gets 25 % of the requests" in document["aftermath"]


def test_the_pipeline_is_clearmls_own(served: CommandLine, missed: Outcome) -> None:
    """A controller with ClearML's tag, graph and plot, failed; its steps are its children, in its hidden project."""
    document = missed.document
    controller = _task(served, document["pipeline_task_id"])
    assert (controller["type"], controller["status"]) == ("controller", "failed")
    assert "pipeline" in controller["system_tags"]
    graph = json.loads(controller["configuration"]["Pipeline"]["value"])
    assert {name: node["parents"] for name, node in graph.items()} == {
        step: [before] if before else [] for before, step in zip(("", *STEPS), STEPS, strict=False)
    }
    assert {name: node["status"] for name, node in graph.items()} == dict.fromkeys(BEFORE_THE_GATE, "completed") | {
        "loadtest": "failed", "promote": "skipped",
    }  # fmt: skip
    plots = _call(served, "events.get_task_plots", task=controller["id"])["plots"]
    assert ("Pipeline", "Execution Flow") in {(plot["metric"], plot["variant"]) for plot in plots}
    for step, task_id in _told(document, "task_id").items():
        if task_id:
            task = _task(served, task_id)
            assert (task["name"], task["status"], task["parent"]) == (step, "completed", controller["id"])
            assert task["project"] == controller["project"]


def test_each_step_has_its_report_on_its_task(served: CommandLine, missed: Outcome) -> None:
    """Its console, a table of what it did, its figures as scalars, and of the load test the page itself."""
    graph = json.loads(_task(served, missed.document["pipeline_task_id"])["configuration"]["Pipeline"]["value"])
    for step, node in graph.items():
        if node["status"] == "skipped":
            continue
        plots = _call(served, "events.get_task_plots", task=node["job_id"])["plots"]
        assert "facts" in {plot["metric"] for plot in plots}, step
        assert _call(served, "events.get_task_log", task=node["job_id"])["total"], step
    load = _task(served, graph["loadtest"]["job_id"])
    assert (load["status"], load["status_reason"]) == ("failed", "exit code 8")
    assert "report" in {artifact["key"] for artifact in load["execution"]["artifacts"]}
    figures = {value["variant"] for metric in load["last_metrics"].values() for value in metric.values()}
    assert {"latency_ms.p99", "throughput_rps"} <= figures


def test_the_same_command_goes_on_from_the_failed_step(served: CommandLine, missed: Outcome, resumed: Outcome) -> None:
    """With a gate that holds: no step before it is run again, and the version gets all requests."""
    document = resumed.document
    assert _told(document, "status") == dict.fromkeys(BEFORE_THE_GATE, "reused") | {
        "loadtest": "done", "promote": "done",
    }  # fmt: skip
    before, now = _told(missed.document, "task_id"), _told(document, "task_id")
    assert all(now[step] == before[step] for step in BEFORE_THE_GATE)
    status = served.tao2serve("status", ENDPOINT, "--json").document
    (endpoint,) = status["endpoints"]
    assert endpoint["route"] == {"2": 1.0}
    graph = json.loads(_task(served, document["pipeline_task_id"])["configuration"]["Pipeline"]["value"])
    assert {node["status"] for node in graph.values()} == {"completed"}


def test_what_is_published_comes_from_the_chosen_model(served: CommandLine, resumed: Outcome) -> None:
    """The step's task shows the trained model, and the artifact that serves."""
    document = resumed.document
    task = _task(served, _told(document, "task_id")["publish"])
    models = {one["model"] for kind in ("input", "output") for one in task["models"][kind]}
    published = _told(document, "detail")["publish"].removeprefix("model ")
    assert {document["model"]["model_id"], published} <= models


def test_a_repeated_pipeline_does_nothing(served: CommandLine, resumed: Outcome) -> None:
    """Unchanged, without a new controller; every step is that of an earlier run."""
    unchanged = _pipeline(served, "--slo", "p99=9s").assert_success().document
    assert (unchanged["outcome"], unchanged["pipeline_task_id"]) == ("unchanged", None)
    assert _told(unchanged, "task_id") == _told(resumed.document, "task_id")


def _tag(command_line: CommandLine, model_id: str, *tags: str) -> None:
    _call(command_line, "models.edit", model=model_id, tags=list(tags))


def test_watch_starts_a_tagged_model_once(served: CommandLine, tmp_path: Path) -> None:
    """One that has the tag before is said; one that gets it later is started once, also after a restart."""
    there, new = (_models(served)[name] for name in ("resnet10_street", "resnet10_street_pruned"))
    (first, second), tags = [model["id"] for model in (there, new)], [model["tags"] for model in (there, new)]
    words = ["watch", "--project", "street-detector", "--tag", "ready", "--endpoint", "watched", "--until", "choose"]
    _tag(served, first, *tags[0], "ready")
    try:
        stderr = tmp_path / "stderr"
        with stderr.open("w") as file:
            watch = subprocess.Popen(
                [sys.executable, "-m", "tao2serve", *words, "--every", "1s"], env=dict(served.environment),
                cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip
        _wait_for("watching project", stderr)
        _tag(served, second, *tags[1], "ready")
        _wait_for(f"done: {new['name']}", stderr)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(60) == 130
        said = stderr.read_text()
        assert f"({first}) has the tag already" in said
        assert said.count("started the pipeline") == 1
        assert not _children_of(watch.pid)
        again = served.tao2serve(*words, "--once", "--json").assert_success()
        assert again.document["started"] == []
    finally:
        _tag(served, first, *tags[0])
        _tag(served, second, *tags[1])


def _wait_for(text: str, stderr: Path) -> None:
    deadline = time.monotonic() + 60
    while text not in stderr.read_text():
        assert time.monotonic() < deadline, stderr.read_text()
        time.sleep(0.1)


def _children_of(pid: int) -> list[int]:
    return [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if _parent(path) == pid and int(path.name) != os.getpid()
    ]


def _parent(path: Path) -> int:
    try:
        return int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1
