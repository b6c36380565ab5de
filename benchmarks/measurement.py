"""What a command costs, and what an environment weighs. Standard library only.

A child's peak memory can come out no smaller than what its parent held when it started it (Linux keeps the
larger of the two across `exec`), so whoever measures must stay small itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CommandFailedError", "Cost", "installed_bytes", "make_environments", "measure", "package_versions"]

_VERSIONS = """
import importlib.metadata, json
print(json.dumps({found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}))
"""


class CommandFailedError(Exception):
    """A measured command did not end with 0; the message holds the end of what it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One run of a command, from its start to its end.

    `peak_bytes` is the largest resident set of the process, threads included, or of a process it waited for,
    whichever is larger (ru_maxrss); `cpu_s` is user and system time of all of them.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int


def measure(command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command in `folder` and return its cost; raises CommandFailedError.

    PYTHONPATH is taken away, so that the command imports what its own environment holds.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        child = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**kept, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
        wall_s = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it, Popen must not look for it
        if child.returncode:
            output.seek(0)
            written = output.read().decode("utf-8", "replace")[-2000:]
            raise CommandFailedError(f"{command[0]} ended with {child.returncode}:\n{written}")
    return Cost(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,  # Linux counts in KiB
    )


def installed_bytes(folder: Path) -> int:
    """Sum the sizes of all files below `folder`, compiled .pyc files included; links count as nothing."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def package_versions(python: Path) -> dict[str, str]:
    """Return what is installed beside an interpreter, by name."""
    found = subprocess.run([str(python), "-I", "-c", _VERSIONS], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(found.stdout)
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))


def make_environments(folder: Path, environments: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Make each environment below `folder` anew, with nothing in it but what its packages bring: no pip, no setuptools.

    `environments` holds, by name, the arguments of each call of pip.
    """
    for name, installs in environments.items():
        print(f"{name}: {' && '.join(' '.join(arguments) for arguments in installs)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder / name)], check=True)
        python = folder / name / "bin" / "python"
        for arguments in installs:
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *arguments]
            subprocess.run(pip, check=True)
