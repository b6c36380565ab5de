"""A locust process: how it is started, with what it may see, and how it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import tao2serve
from tao2serve.errors import ToolError

__all__ = ["ended", "remove_scratch", "require_locust", "start_locust", "tail"]

_INSTALL = "pip install 'tao2serve[loadtest]'"
_STOP_WAIT_S = 2.0


def require_locust() -> None:
    """Raise ToolError if locust is not installed."""
    if importlib.util.find_spec("locust") is None:
        raise ToolError("locust", "is not installed", hint=_INSTALL)


def start_locust(
    options: Sequence[str], *, folder: Path, variables: Mapping[str, str], log: IO[bytes], pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start locust with our locustfile, in a session of its own: a Ctrl-C at the terminal reaches only us."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("generator") / "locustfile.py")),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,  # locust reads locust.conf and pyproject.toml of the directory it runs in
        env=_environment(variables),
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the process: ours, without options for locust, with this very package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    package_root = str(Path(tao2serve.__file__).resolve().parent.parent)
    inherited = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    search = [package_root, *(str(Path(entry).resolve()) for entry in inherited)]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONSAFEPATH": "1",  # the working directory is no place to import from
        **variables,
    }


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leave no process behind, by its id, whatever ended the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def remove_scratch(scratch: Path, *, but: Path | None = None) -> None:
    """Remove the folder of a run, or all that is in it `but` the log that an error names."""
    if but is None:
        shutil.rmtree(scratch, ignore_errors=True)
        return
    for path in scratch.iterdir():
        if path != but:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log, "" if it cannot be read."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
