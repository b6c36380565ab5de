"""Commands on a ClearML queue, run by the real clearml-agent beside the sandbox."""

from __future__ import annotations

import json
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

from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.tao.subtask import IMAGES

pytestmark = pytest.mark.integration
PICTURE = pictures()[0] if pictures() else Path("missing.jpg")
WEIGHTS = SAMPLE / "pruned" / "weights" / "resnet10_street_pruned.hdf5"


@pytest.fixture(scope="module")
def agent(sandbox: CommandLine) -> Iterator[CommandLine]:
    """The shared sandbox with ClearML's own agent on queue `default`; it ends with this module."""
    document = sandbox.tao2serve("sandbox", "up", "--agent", "--json").assert_success().document
    assert document["agent"]["queue"] == "default"
    yield sandbox
    sandbox.tao2serve("sandbox", "up", "--no-agent").assert_success()


@pytest.fixture(scope="module")
def exported(agent: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """An export of a local file on the queue, into a folder of its own."""
    folder = tmp_path_factory.mktemp("there")
    return agent.tao2serve("export", WEIGHTS, "-o", folder, "--queue", "default", "--json").assert_success(), folder


def _call(command_line: CommandLine, endpoint: str, **params: Any) -> Any:
    keys = (command_line.environment["CLEARML_API_ACCESS_KEY"], command_line.environment["CLEARML_API_SECRET_KEY"])
    url = f"{command_line.environment['CLEARML_API_HOST']}/{endpoint}"
    return httpx.post(url, json=params, auth=keys, trust_env=False).json()["data"]


def _bearer(command_line: CommandLine) -> dict[str, str]:
    return {"Authorization": f"Bearer {_call(command_line, 'auth.login')['token']}"}


def test_an_export_on_a_queue_leaves_what_the_export_here_leaves(
    agent: CommandLine, exported: tuple[Outcome, Path], tmp_path: Path
) -> None:
    """The same files with the same bytes, the same document with the user's own paths, and who ran it."""
    outcome, there = exported
    here = agent.tao2serve("export", WEIGHTS, "-o", tmp_path, "--json").assert_success().document
    names = sorted(path.name for path in tmp_path.iterdir())
    assert sorted(path.name for path in there.iterdir()) == names
    assert all((there / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
    document = outcome.document
    ran_on = document.pop("ran_on")
    assert (ran_on["queue"], ran_on["worker"].endswith(":sandbox")) == ("default", True)
    for one in (here, document):
        for step in one["steps"]:
            del step["seconds"]
    assert json.loads(json.dumps(document).replace(str(there), str(tmp_path))) == here


def test_its_console_is_shown_while_it_runs(exported: tuple[Outcome, Path]) -> None:
    """The command's own lines are on stderr, with the user's paths, and none of the agent's set-up as a line."""
    stderr = exported[0].stderr
    assert "\ndone    prove parity with the weights" in stderr
    assert "tao2serve-in" not in stderr
    assert "\nsdk." not in stderr


def test_no_credentials_are_in_the_task(agent: CommandLine, exported: tuple[Outcome, Path]) -> None:
    """Neither its arguments and console nor its artifacts hold the secret; inputs are there with their SHA-256."""
    task_id = exported[0].document["ran_on"]["task_id"]
    secret = agent.environment["CLEARML_API_SECRET_KEY"]
    task = _call(agent, "tasks.get_by_id", task=task_id)["task"]
    log = _call(agent, "events.get_task_log", task=task_id, batch_size=5000)
    assert secret not in json.dumps([task, log])
    artifacts = task["execution"]["artifacts"]
    assert {"input-00", "output-00", "package", "result"} <= {one["key"] for one in artifacts}
    assert all(len(one["hash"]) == 64 for one in artifacts)
    assert task["container"]["image"].startswith("nvcr.io/nvidia/tritonserver:")
    files = Path(agent.environment["TAO2SERVE_HOME"]) / "sandbox" / "clearml-server" / "files"
    assert not [path for path in files.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def distant(agent: CommandLine, exported: tuple[Outcome, Path]) -> Iterator[dict[str, Any]]:
    """A deployment on the queue, as endpoint `distant`: the JSON document of `deploy`."""
    outcome = agent.tao2serve(
        "deploy", WEIGHTS, "--endpoint", "distant", "--image", PICTURE, "--queue", "default", "--json"
    )
    yield outcome.assert_success().document
    agent.tao2serve("undeploy", "distant", "--all", "--json").assert_success()


def test_a_deployment_on_a_queue_serves(agent: CommandLine, distant: dict[str, Any]) -> None:
    """The endpoint answers, as after a deployment here; what was uploaded before is not uploaded again."""
    assert distant["ran_on"]["queue"] == "default"
    assert distant["parity"]["matched_ratio"] == 1.0
    (answer,) = agent.tao2serve("predict", "distant", PICTURE, "--json").assert_success().document["results"]
    assert answer["predictions"]
    artifacts = _call(agent, "tasks.get_by_id", task=distant["ran_on"]["task_id"])["task"]["execution"]["artifacts"]
    weights = next(one for one in artifacts if one["key"] == "input-00")
    assert distant["ran_on"]["task_id"] not in weights["uri"]


def test_steps_of_a_pipeline_run_on_a_queue(agent: CommandLine) -> None:
    """Each by the agent, with what the one before it left; done there they stand here too."""
    words = ("pipeline", "--project", "street-detector", "--endpoint", "distant", "--until", "build", "--json")
    document = agent.tao2serve(*words, "--queue", "default").assert_success().document
    for one in document["pipeline"]:
        task = _call(agent, "tasks.get_by_id", task=one["task_id"])["task"]
        assert (task["status"], task["last_worker"].endswith(":sandbox")) == ("completed", True), one
    here = agent.tao2serve(*words).assert_success().document
    assert [(one["status"], one["task_id"]) for one in here["pipeline"]] == [
        ("reused", one["task_id"]) for one in document["pipeline"]
    ]


def test_ctrl_c_here_ends_it_there(agent: CommandLine, distant: dict[str, Any], tmp_path: Path) -> None:
    """The command there is interrupted, its task is stopped, and that is said; exit 130."""
    command = [
        *(sys.executable, "-m", "tao2serve", "loadtest", "distant", "--images", str(PICTURE), "--run-time", "120s"),
        *("--queue", "default", "--json"),
    ]
    stderr = tmp_path / "stderr"
    with stderr.open("w") as file:
        process = subprocess.Popen(
            command, env=dict(agent.environment), cwd=tmp_path, stdout=subprocess.PIPE, stderr=file, text=True
        )
    deadline = time.monotonic() + 120
    while "...     load test" not in stderr.read_text() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 130, stdout + stderr.read_text()
    said = json.loads(stdout)["aftermath"]
    assert "is stopped" in said
    task = _call(agent, "tasks.get_by_id", task=said.split()[2])["task"]
    assert task["status"] in ("in_progress", "stopped")
    result = next(one for one in task["execution"]["artifacts"] if one["key"] == "result")
    assert httpx.get(result["uri"], headers=_bearer(agent), trust_env=False).json()["exit_code"] == 130


def test_a_queue_that_nobody_serves_is_said(agent: CommandLine, tmp_path: Path) -> None:
    """Exit 5 for a queue that does not exist, with those there are, and for one without workers; nothing is sent.

    With --queue-wait it is sent, and taken out of the queue again when no worker has come. Its task asks for the image
    that opens the model, here TAO's; no worker is here that runs one.
    """
    queue = _call(agent, "queues.create", name="empty")["id"]
    encrypted = tmp_path / "model.tlt"
    encrypted.write_bytes(b"encrypted weights")
    awaited = agent.tao2serve("export", encrypted, "--queue", "empty", "--queue-wait", "1s", "--json")
    assert (awaited.code, awaited.document["step"]) == (5, "wait for a worker")
    assert _call(agent, "queues.get_num_entries", queue=queue)["num"] == 0
    task_id = awaited.document["ran_on"]["task_id"]
    task = _call(agent, "tasks.get_by_id", task=task_id)["task"]
    assert (task["status"], task["container"]["image"]) == ("stopped", IMAGES["model"])
    missing = agent.tao2serve("export", WEIGHTS, "--queue", "nowhere", "--json")
    unserved = agent.tao2serve("export", WEIGHTS, "--queue", "empty", "--json")
    assert (missing.code, unserved.code) == (5, 5)
    assert "default: served by" in missing.document["error"]["evidence"]
    assert "served by no worker" in unserved.document["error"]["evidence"]
    assert "ran_on" not in unserved.document


def test_an_old_clustering_file_is_refused_before_anything_is_sent(agent: CommandLine, tmp_path: Path) -> None:
    """Of a model in ClearML too, whose spec is looked up there: exit 2, as the export here, and no task is made."""
    (tmp_path / "experiment_spec_clustering.txt").write_text("of another export")
    words = ("export", "--project", "street-detector", "-o", tmp_path, "--queue", "default", "--json")
    outcome = agent.tao2serve(*words)
    assert (outcome.code, "ran_on" in outcome.document) == (2, False)
    assert "would change the clustering" in outcome.document["error"]["fact"]
