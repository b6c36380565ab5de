"""trtexec as a program: a script stands in for it, since the real one comes with TensorRT alone."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from plan_files import exported, plan_bytes

from tao2serve.errors import ToolError, UsageError
from tao2serve.export.engine.find import find_builder
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.engine.trtexec_builder import TrtexecBuilder

SCRIPT = """#!{python}
# Not trtexec: it prints in its manner, keeps its arguments, and writes a header in place of a plan.
import json, os, pathlib, subprocess, sys, time
arguments = sys.argv[1:]
print("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # " + " ".join(arguments), flush=True)
if "--help" in arguments:
    sys.exit(0)
here = pathlib.Path(__file__).parent
(here / "arguments.json").write_text(json.dumps(arguments))
options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
print("[11/23/2026-11:26:00] [I] [TRT] Building", flush=True)
{behaviour}
pathlib.Path(options["--saveEngine"]).write_bytes(bytes.fromhex("{plan}"))
print("&&&& PASSED TensorRT.trtexec", flush=True)
"""


def _program(folder: Path, behaviour: str = "") -> Path:
    path = folder / "bin" / "trtexec"
    path.parent.mkdir()
    path.write_text(SCRIPT.format(python=sys.executable, behaviour=behaviour, plan=plan_bytes().hex()))
    path.chmod(0o755)
    return path


def _builder(folder: Path, behaviour: str = "", *, timeout_s: float = 60.0) -> TrtexecBuilder:
    program = _program(folder, behaviour)
    return TrtexecBuilder(program=program, version="10.16.1.11", log=folder / "logs" / "trtexec.log",
                          timeout_s=timeout_s)  # fmt: skip


def test_a_plan_by_trtexec(tmp_path: Path) -> None:
    """The arguments arrive one by one, without a shell in between; the plan comes back and the log is kept."""
    folder = tmp_path / "a b"
    folder.mkdir()
    builder, news = _builder(folder), list[str]()
    request = EngineRequest(artifact=exported(folder), max_batch=16)
    assert builder.build(request, on_news=news.append) == plan_bytes()
    arguments = json.loads((folder / "bin" / "arguments.json").read_text())
    assert f"--onnx={request.artifact.path}" in arguments
    assert "--maxShapes='input_1:0':16x3x32x48" in arguments
    assert "--stronglyTyped" in arguments
    assert news[-1] == "&&&& PASSED TensorRT.trtexec"
    assert "[TRT] Building" in builder.log.read_text()


def test_trtexec_is_found_by_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the program builds, in the version of its banner."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    program = _program(tmp_path)
    builder = find_builder(
        EngineRequest(artifact=exported(tmp_path)), here=Machine(trtexec=program), log=tmp_path / "log"
    )
    assert (builder.name, builder.version) == ("trtexec", "10.16.1.11")


def test_progress_is_told_without_times_and_levels(tmp_path: Path) -> None:
    """While it works, its lines are news as they come."""
    news: list[str] = []

    def told(line: str) -> None:
        news.append(line)
        if line == "Building":
            (tmp_path / "bin" / "seen").touch()

    waits = "while not (here / 'seen').exists(): time.sleep(0.01)"
    _builder(tmp_path, waits).build(EngineRequest(artifact=exported(tmp_path)), on_news=told)
    assert news[-1] == "&&&& PASSED TensorRT.trtexec"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("print('[E] Error[10]: no implementation', flush=True); print('more'); sys.exit(1)", "[E] Error[10]"),
        ("print('out of luck', flush=True); sys.exit(3)", "out of luck"),
        ("sys.exit(0)", "left no plan"),
        ("os.kill(os.getpid(), 9)", "exit status -9"),
    ],
)
def test_failures_show_the_last_errors_and_the_log(tmp_path: Path, behaviour: str, words: str) -> None:
    """What trtexec marks as an error is the evidence; the log and the whole command are named."""
    builder = _builder(tmp_path, behaviour)
    with pytest.raises(ToolError, match=r"did not build model\.onnx") as caught:
        builder.build(EngineRequest(artifact=exported(tmp_path)), on_news=lambda _: None)
    assert words in caught.value.evidence
    assert caught.value.log == builder.log
    assert "--noTF32" in caught.value.hint


HANGS = """#!/bin/sh
sleep 600 &
echo $$ $! > "$(dirname "$0")/pids"
echo waiting
sleep 600
"""


def _hanging(folder: Path, *, timeout_s: float) -> TrtexecBuilder:
    builder = _builder(folder, timeout_s=timeout_s)
    builder.program.write_text(HANGS)
    return builder


def _gone(pids: Path) -> bool:
    """Whether every process of the file ends soon; an orphan is for init to collect, so a zombie counts as gone."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(_runs(pid) for pid in pids.read_text().split()):
            return True
        time.sleep(0.02)
    return False


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    """After the time it is given, the program and what it started are ended."""
    builder = _hanging(tmp_path, timeout_s=1.0)
    with pytest.raises(ToolError, match=r"did not finish within 1 s") as caught:
        builder.build(EngineRequest(artifact=exported(tmp_path)), on_news=lambda _: None)
    assert caught.value.evidence == "waiting"
    assert _gone(tmp_path / "bin" / "pids")


def test_an_interrupt_ends_the_program(tmp_path: Path) -> None:
    """Ctrl-C leaves nothing running."""

    def interrupted(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _hanging(tmp_path, timeout_s=60).build(EngineRequest(artifact=exported(tmp_path)), on_news=interrupted)
    assert _gone(tmp_path / "bin" / "pids")


def test_what_cannot_be_run_or_logged(tmp_path: Path) -> None:
    """A program without the right to run is a tool that is missing; a log that cannot be written is usage."""
    builder = _builder(tmp_path)
    builder.program.chmod(0o644)
    request = EngineRequest(artifact=exported(tmp_path))
    with pytest.raises(ToolError, match="cannot be run"):
        builder.build(request, on_news=lambda _: None)
    (tmp_path / "file").touch()
    nowhere = TrtexecBuilder(program=builder.program, version="11.0", log=tmp_path / "file" / "log")
    with pytest.raises(UsageError, match="cannot be written"):
        nowhere.build(request, on_news=lambda _: None)
    assert os.access(builder.log, os.R_OK)
