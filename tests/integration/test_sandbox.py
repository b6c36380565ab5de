"""The local stack: up, down, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import CommandLine, make_command_line, processes_of, shared_memory

from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = pytest.mark.integration


def memory_prefix(home: Path) -> str:
    """How the names of this sandbox's shared-memory segments begin."""
    return str(json.loads((home / "sandbox" / "state.json").read_text())["shared_memory"])


def test_everything_listens_on_loopback_only(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """No process of the stack, not even Triton's own children, can be reached from another machine."""
    listening = [
        connection.laddr
        for process in processes_of(Path(sandbox.environment["TAO2SERVE_HOME"]))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 6
    # gRPC listens on the same address in its IPv6 spelling.
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_up_again_and_status_say_the_same(sandbox: CommandLine) -> None:
    """`up` on a running sandbox changes nothing, and `status` exits 0."""
    first = sandbox.tao2serve("sandbox", "status", "--json").assert_success().document
    again = sandbox.tao2serve("sandbox", "up", "--json").assert_success().document
    assert again == first
    assert first["running"]
    assert {entry["name"] for entry in first["processes"]} == {"clearml-server", "triton", "clearml-serving"}


def test_logs_are_there_to_read(sandbox: CommandLine) -> None:
    """`logs` prints a named log; a name that is not there lists those that are."""
    assert "model_lifecycle" in sandbox.tao2serve("sandbox", "logs", "triton", "-n", "500").assert_success().stdout
    missing = sandbox.tao2serve("sandbox", "logs", "nginx")
    assert missing.code == 2
    assert "triton" in missing.stderr


def test_a_spec_of_another_model_is_refused_in_the_users_words(sandbox: CommandLine, tmp_path: Path) -> None:
    """`deploy` names ClearML's model and the spec that was given; what it fetched is gone, and is not named."""
    spec = SAMPLE / "pruned" / "experiment_spec.txt"
    (tmp_path / "wide.txt").write_text(
        spec.read_text().replace("output_image_width: 384", "output_image_width: 640"), encoding="utf-8"
    )
    refused = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--spec", tmp_path / "wide.txt", "--endpoint", "wide", "--json"
    )
    assert refused.code == 3
    error = refused.document["error"]
    assert ".hdf5 of ClearML model " in error["subject"]
    assert error["fact"] == f"does not belong to the experiment spec {tmp_path / 'wide.txt'}"
    assert "tao2serve-deploy-" not in json.dumps(error)


def test_a_second_sandbox_lives_a_whole_life_beside_the_first(
    sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path
) -> None:
    """Another home has ports and credentials of its own; its data survives down and kill -9; purged, it is gone."""
    home = tmp_path / "home"
    plain = make_command_line(home, tmp_path / "work")
    first = plain.tao2serve("sandbox", "up", "--json").assert_success().document
    try:
        variables = plain.tao2serve("sandbox", "env", "--json").assert_success().document
        assert variables["CLEARML_API_HOST"] != sandbox.environment["CLEARML_API_HOST"]
        assert variables["CLEARML_API_SECRET_KEY"] != sandbox.environment["CLEARML_API_SECRET_KEY"]
        inside = make_command_line(home, tmp_path / "work", **variables)
        inside.tao2serve("deploy", "--project", "street-detector", "--endpoint", "street").assert_success()

        prefix = memory_prefix(home)
        assert shared_memory(prefix)
        plain.tao2serve("sandbox", "down").assert_success()
        assert not processes_of(home)
        assert not shared_memory(prefix)
        assert plain.tao2serve("sandbox", "status").code == 6

        plain.tao2serve("sandbox", "up").assert_success()
        inside.tao2serve("predict", "street", pictures()[0]).assert_success()

        for entry in plain.tao2serve("sandbox", "status", "--json").document["processes"]:
            os.kill(entry["pid"], signal.SIGKILL)
        assert plain.tao2serve("sandbox", "env").code == 6
        recovered = plain.tao2serve("sandbox", "up", "--json").assert_success().document
        assert recovered["service_id"] == first["service_id"]
        assert recovered["urls"] == first["urls"]
        inside.tao2serve("predict", "street", pictures()[0]).assert_success()
        prefix = memory_prefix(home)
        assert shared_memory(prefix)
    finally:
        plain.tao2serve("sandbox", "down", "--purge").assert_success()
    assert not processes_of(home)
    assert not (home / "sandbox").exists()
    assert not shared_memory(prefix)
    sandbox.tao2serve("predict", "street", pictures()[0]).assert_success()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupted_start_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C while the stack starts ends what was started, and exits 130."""
    home = tmp_path / "home"
    command = make_command_line(home, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "tao2serve", "sandbox", "up"],
        env=dict(command.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (home / "sandbox" / "logs" / "triton.log").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert not processes_of(home)


def test_a_start_cut_off_while_seeding_leaves_no_half_seed(tmp_path: Path) -> None:
    """Killed while the sample runs are written; the next start has each of their models once."""
    home = tmp_path / "home"
    plain = make_command_line(home, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "tao2serve", "sandbox", "up"],
        env=dict(plain.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seed_log = home / "sandbox" / "logs" / "seed.log"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (seed_log.exists() and "created new task" in seed_log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    try:
        plain.tao2serve("sandbox", "up").assert_success()
        inside = make_command_line(home, tmp_path, **plain.tao2serve("sandbox", "env", "--json").document)
        for project in ("street-detector", "street-detector-local"):
            document = inside.tao2serve("models", "--project", project, "--json").assert_success().document
            assert len(document["models"]) == 2
    finally:
        plain.tao2serve("sandbox", "down", "--purge").assert_success()
