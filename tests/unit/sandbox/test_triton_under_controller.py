"""What stands between ClearML Serving's controller and the real Triton, without either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tao2serve.errors import UsageError
from tao2serve.identity import process_identity
from tao2serve.sandbox import stack
from tao2serve.sandbox.environment import client_environment
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import ProcessRecord, is_alive, start, stop
from tao2serve.sandbox.state import Ports, SandboxState, read_record, read_state, write_state
from tao2serve.sandbox.triton_controller import put_whole
from tao2serve.sandbox.triton_shim import Shim, triton_arguments, write_shim

PORTS = Ports(api=1, files=2, serving=3, triton_http=4, triton_grpc=5, triton_metrics=6)


def test_the_options_of_the_controller_become_those_that_triton_takes() -> None:
    """Whole seconds, at least one, or Triton would never look again; the metrics port is the sandbox's own."""
    given = ("--model-control-mode=poll", "--repository-poll-secs=60.0", "--metrics-port=8002")
    assert triton_arguments(given, ("--metrics-port=7",)) == (
        "--model-control-mode=poll", "--repository-poll-secs=60", "--metrics-port=7",
    )  # fmt: skip
    assert triton_arguments(("--repository-poll-secs=0.9",), ()) == ("--repository-poll-secs=1",)


def test_the_program_on_path_becomes_the_real_one_and_records_it(tmp_path: Path) -> None:
    """The recorded process is the very one that runs; our options follow the caller's."""
    binary = tmp_path / "real"
    binary.write_text('#!/bin/sh\necho "$$ $*"\n')
    binary.chmod(0o755)
    shim, record = tmp_path / "a bin", tmp_path / "record.json"
    write_shim(Shim(binary=str(binary), options=("--ours=1",), record=str(record)), shim)
    environment = {**os.environ, "PATH": f"{shim}{os.pathsep}{os.environ['PATH']}"}
    command = ["tritonserver", "--repository-poll-secs=2.5"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    recorded = json.loads(record.read_text())
    assert said == [str(recorded["pid"]), "--repository-poll-secs=2", "--ours=1"]
    assert read_record(record) == ProcessRecord(**recorded)


def test_only_whole_models_reach_triton(tmp_path: Path) -> None:
    """Triton sees a folder once all of it is there; of a failed download it sees nothing, and old content is gone."""
    staging, repository = tmp_path / "staging", tmp_path / "models"
    (repository / "street_1" / "1").mkdir(parents=True)
    (repository / "street_1" / "1" / "old.onnx").touch()

    def step(*, model_repository_folder: str, verbose: bool) -> bool:
        for name in ("street_1", "lost_1"):
            (Path(model_repository_folder) / name / "1").mkdir(parents=True)
        (Path(model_repository_folder) / "street_1" / "config.pbtxt").touch()
        assert sorted(path.name for path in repository.iterdir()) == ["street_1"]
        return verbose

    assert put_whole(step, staging)(model_repository_folder=str(repository), verbose=True) is True
    assert sorted(path.name for path in repository.iterdir()) == ["street_1"]
    assert sorted(path.relative_to(repository / "street_1").as_posix() for path in repository.rglob("*")
                  if path.parent != repository) == ["1", "config.pbtxt"]  # fmt: skip


def test_a_state_written_before_there_was_a_choice_is_read(tmp_path: Path) -> None:
    """A sandbox of an older tao2serve goes on as one whose Triton is its own."""
    path = tmp_path / "state.json"
    write_state(SandboxState(ports=PORTS, shared_memory="x_"), path)
    document = json.loads(path.read_text())
    del document["managed"]
    path.write_text(json.dumps(document))
    state = read_state(path)
    assert state is not None
    assert not state.managed
    assert client_environment(SandboxPaths(tmp_path), state)["TAO2SERVE_MANAGED"] == "false"


def test_a_sandbox_of_the_other_kind_is_not_taken_for_the_one_asked_for(tmp_path: Path) -> None:
    """`up --managed` while the other kind runs exits 2, and names the way; without a wish either kind will do."""
    paths = SandboxPaths(tmp_path)
    me = ProcessRecord(name="triton", pid=os.getpid(), identity=process_identity(os.getpid()))
    write_state(SandboxState(ports=PORTS, shared_memory="x_", processes=(me,), ready=True), paths.state)
    assert stack.up(tmp_path).ready
    assert stack.up(tmp_path, managed=False).ready
    with pytest.raises(UsageError) as caught:
        stack.up(tmp_path, managed=True)
    assert "sandbox down" in caught.value.hint


def test_a_triton_whose_controller_is_gone_is_ended_too(tmp_path: Path) -> None:
    """`down` ends the Triton that a killed controller left running."""
    paths = SandboxPaths(tmp_path)
    program = [sys.executable, "-c", "import time; time.sleep(100)"]
    orphan = start("triton", program, environment=os.environ, log=tmp_path / "triton.log")
    try:
        paths.controller.mkdir(parents=True)
        paths.triton_record.write_text(json.dumps(asdict(orphan)))
        write_state(SandboxState(ports=PORTS, shared_memory="tao2serve_none_", managed=True), paths.state)
        assert is_alive(orphan)
        assert stack.down(tmp_path)
        assert not is_alive(orphan)
        assert read_record(paths.triton_record) is None
    finally:
        stop(orphan, grace_s=1)
