"""One run of TAO at a time in a folder, also after a tao2serve that was killed; no secret stays longer than needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tao2serve.errors import ServiceError, ToolError
from tao2serve.tao.place import Place
from tao2serve.tao.running import RunRequest, run_tao
from tao2serve.tao.subtask import evaluate

KILLED = """
import sys
from pathlib import Path
from tao2serve.tao.place import Place
from tao2serve.tao.running import RunRequest, run_tao
from tao2serve.tao.subtask import evaluate
place = Place(way="inside", program=Path(sys.argv[1]))
results = Path(sys.argv[2])
subtask = evaluate(Path("model.hdf5"), spec=Path("spec.txt"), results=results)
run_tao(RunRequest(subtask=subtask, place=place, results=results, log=results / "log"), on_news=print)
"""


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def request(program: Path, results: Path, *, way: str = "inside") -> RunRequest:
    place = Place(way=way, program=program)  # type: ignore[arg-type]
    subtask = evaluate(Path("model.hdf5"), spec=Path("spec.txt"), results=results)
    return RunRequest(subtask=subtask, place=place, results=results, log=results / "log", key="a key of it")


def test_what_a_killed_run_left_running_keeps_others_out(tmp_path: Path) -> None:
    """Two trainings in one folder would write over each other's checkpoints; when the first ends it is free."""
    results = tmp_path / "results"
    results.mkdir()
    lasting = program(
        tmp_path / "lasting", f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 60"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ours = subprocess.Popen([sys.executable, "-c", KILLED, lasting, results], env=environment)
    while not (tmp_path / "pid").exists():
        assert ours.poll() is None
        time.sleep(0.05)
    ours.kill()
    ours.wait()
    child = int((tmp_path / "pid").read_text())
    failing = program(tmp_path / "failing", "exit 3")
    try:
        with pytest.raises(ServiceError, match="being written by another run"):
            run_tao(request(failing, results), on_news=print)
    finally:
        os.kill(child, signal.SIGKILL)
    for _ in range(100):
        try:
            run_tao(request(failing, results), on_news=print)
        except ToolError:
            return
        except ServiceError:
            time.sleep(0.05)
    pytest.fail("the folder is still held")


def test_the_mounts_file_goes_when_the_script_runs(tmp_path: Path) -> None:
    """It holds ClearML's credentials, and a run that is killed after days would leave it behind."""
    seen: list[str] = []
    launcher = program(
        tmp_path / "tao",
        'folder=$(dirname $LAUNCHER_MOUNTS)\n[ -s $folder/mounts.json ] && echo "mounts are there"\nsleep 0.3\n'
        'echo \'{"started": true, "code": 0}\' > $folder/status.json\necho running\nsleep 0.5\n'
        '[ -e $folder/mounts.json ] || echo "mounts are gone"',
    )
    (tmp_path / "results").mkdir()
    run_tao(request(launcher, tmp_path / "results", way="launcher"), on_news=seen.append)
    assert seen == ["mounts are there", "running", "mounts are gone"]
