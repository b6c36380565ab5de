"""Deployments that are killed, and deployments that meet: what serves goes on, and nothing is left lying about."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from clearml_state import ClearML
from command_line import CommandLine
from killed_runs import asked_meanwhile, interrupt_in_step, kill_in_step, start

from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = pytest.mark.integration
PICTURE = pictures()[0] if pictures() else Path("missing.jpg")
UNPRUNED = next((SAMPLE / "unpruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))
PRUNED = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))
# Those before and between these touch nothing outside the run's own folder.
STEPS = (
    "export to ONNX", "publish to ClearML", "decide on the version", "load on Triton", "register the endpoint version",
    "ask it, and compare with the artifact", "switch the alias",
)  # fmt: skip


def folders(sandbox: CommandLine, endpoint: str) -> list[str]:
    repository = Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])
    return sorted(path.name for path in repository.iterdir() if path.name.strip(".").startswith(f"{endpoint}_"))


def test_a_run_killed_in_any_step_is_gone_on_with(sandbox: CommandLine) -> None:
    """Killed in each step in turn, at some moment: what served answers throughout, and the last run makes version 2.

    No number is burned, no folder, registration, model or half upload is left, and no claim is held.
    """
    first = sandbox.tao2serve("deploy", UNPRUNED, "--endpoint", "hardy", "--image", PICTURE, "--json")
    alias = first.assert_success().document["endpoint"]["alias_url"]
    models = len(ClearML(sandbox).models())
    arguments = ("deploy", PRUNED, "--endpoint", "hardy", "--image", PICTURE, "--json")
    seed = random.randrange(10_000)
    moments = random.Random(seed)
    with asked_meanwhile(alias, PICTURE) as asked:
        for step in STEPS:
            kill_in_step(sandbox, step, *arguments, after_s=moments.choice((0.0, moments.uniform(0, 0.3))))
        last = sandbox.tao2serve(*arguments).assert_success().document
    assert asked.failures == [], f"seed {seed}"
    assert sum(asked.by_version.values()) > 50
    assert set(asked.by_version) <= {"1", "2"}
    assert last["endpoint"]["version"] == "2", f"seed {seed}"
    assert last["endpoint"]["reused"] is True
    assert last["alias"]["after"] == {"2": 1.0}
    assert folders(sandbox, "hardy") == ["hardy_1", "hardy_2"]
    clearml = ClearML(sandbox)
    assert "hardy/2 {" in clearml.configured("endpoints")
    assert "hardy/3" not in clearml.configured("endpoints")
    assert [model["uri"] for model in clearml.models() if "uploading_file" in model["uri"]] == []
    assert len(clearml.models()) <= models + 1
    assert {entry["status"] for entry in clearml.operations("hardy")} == {"completed", "failed"}
    again = sandbox.tao2serve(*arguments).assert_success().document
    assert again["changed"] is False


def test_what_a_killed_run_left_goes_when_something_else_is_deployed(sandbox: CommandLine) -> None:
    """Killed once it was registered; the next one has other inputs: its version is taken away, its number not used."""
    kill_in_step(
        sandbox, "ask it, and compare with the artifact",
        "deploy", UNPRUNED, "--endpoint", "other", "--image", PICTURE, "--json",
    )  # fmt: skip
    assert "other/1 {" in ClearML(sandbox).configured("endpoints")
    done = sandbox.tao2serve("deploy", PRUNED, "--endpoint", "other", "--image", PICTURE, "--json").assert_success()
    assert done.document["endpoint"]["version"] == "2"
    assert folders(sandbox, "other") == ["other_2"]
    assert "other/1" not in ClearML(sandbox).configured("endpoints")
    assert ClearML(sandbox).operations("other")[0]["stage"] == "taken back"


def test_an_interrupted_run_says_in_which_step_and_what_became_of_the_version(sandbox: CommandLine) -> None:
    """Exit 130, in the document too; the version was taken back, as it says, and its operation tells the step."""
    first = interrupt_in_step(
        sandbox, "register the endpoint version", "deploy", PRUNED, "--endpoint", "broken", "--image", PICTURE, "--json"
    )
    assert first.code == first.document["exit_code"] == 130, first
    assert first.document["step"] == "register the endpoint version"
    assert first.document["aftermath"] == "version 1 was taken back, and the alias is as it was"
    assert folders(sandbox, "broken") == []
    assert "broken/" not in ClearML(sandbox).configured("endpoints")
    (operation,) = ClearML(sandbox).operations("broken")
    assert operation["stage"] == "taken back"
    early = interrupt_in_step(
        sandbox, "choose the trained model", "deploy", PRUNED, "--endpoint", "broken", number=signal.SIGTERM
    )
    assert early.code == 130, early
    assert "interrupted\n" in early.stderr
    assert "  then: nothing was begun\n" in early.stderr
    assert len(ClearML(sandbox).operations("broken")) == 1


def test_of_two_at_once_one_wins_and_the_other_says_so(sandbox: CommandLine) -> None:
    """Two on one endpoint, started together or nearly: each round makes one version, and one exit 5 that says why."""
    for delay_s in (0.0, 0.4):
        arguments = ("deploy", PRUNED, "--endpoint", "rival", "--image", PICTURE, "--force", "--json")
        ended = together(sandbox, [arguments, arguments], delay_s=delay_s)
        codes = sorted(code for code, _ in ended)
        assert codes == [0, 5], ended
        refused = next(document for code, document in ended if code == 5)
        assert "is being changed by another operation" in refused["error"]["fact"]
    endpoints = ClearML(sandbox).configured("endpoints")
    assert [f"rival/{number} {{" in endpoints for number in (1, 2, 3)] == [True, True, False]


def test_two_endpoints_at_once_both_succeed(sandbox: CommandLine) -> None:
    """Both are registered and routed to in the end: neither overwrote the other's change."""
    ended = together(sandbox, [
        ("deploy", PRUNED, "--endpoint", name, "--image", PICTURE, "--json") for name in ("lefty", "righty")
    ], delay_s=0.0)  # fmt: skip
    assert [code for code, _ in ended] == [0, 0], ended
    clearml = ClearML(sandbox)
    for name in ("lefty", "righty"):
        assert f"{name}/1 {{" in clearml.configured("endpoints")
        assert f'"{name}/1"' in clearml.configured("canary")


def together(
    sandbox: CommandLine, commands: list[tuple[str | Path, ...]], *, delay_s: float
) -> list[tuple[int, dict[str, Any]]]:
    """Run commands at the same time, each a little after the other; return exit codes and documents."""
    processes = []
    for command in commands:
        if processes:
            threading.Event().wait(delay_s)
        processes.append(start(sandbox, *command))
    ended = []
    for process in processes:
        output, _ = process.communicate(timeout=200)
        ended.append((process.returncode, json.loads(output)))
    return ended
