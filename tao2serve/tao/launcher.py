"""NVIDIA's `tao` launcher as a program: it starts TAO's container and runs one subtask in it.

The launcher pins old versions of what the ClearML SDK needs and lives in an environment of its own. What it
does with its arguments, mounts and exit code is written down in docs/tao-launcher.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tao2serve.errors import ToolError, UsageError
from tao2serve.tao import container_entry
from tao2serve.tao.child import ChildRequest, run_child
from tao2serve.tao.launcher_failures import explain_failure
from tao2serve.tao.mounts import MOUNTS_VARIABLE, Mounts, reach, user_mounts, write_mounts

__all__ = ["LAUNCHER_VERSION", "SubtaskRequest", "find_launcher", "launcher_version", "run_subtask"]

LAUNCHER_VERSION: Final = "6.26.3"  # the release all of this was established with
_VERSION_LIMIT_S: Final = 60.0
_MODULE: Final = "nvidia_tao_tf1.cv.{task}.scripts.{subtask}"  # what `detectnet_v2 <subtask>` runs in TAO 5.0
_ENTRY: Final = "entry.py"
# The launcher joins its arguments and hands them, unquoted, to two shells of this machine.
_SHELL_SAFE: Final = re.compile(r"[\w./+@%=:,-]+", re.ASCII)
# Inherited, these would have the launcher load our packages, or put all variables on Docker's command line.
_DROPPED: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "CI_PROJECT_DIR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskRequest:
    """One subtask of a TAO network, such as `export`; the key never becomes part of a command line.

    A Path among the arguments is one of this machine, and becomes the container's path of the same file.
    """

    launcher: Path
    subtask: str
    arguments: tuple[str | Path, ...]
    key: str = field(repr=False)
    log: Path
    timeout_s: float
    task: str = "detectnet_v2"


def find_launcher(named: Path | None = None) -> Path | None:
    """Return the launcher: `named` if given, else `tao` on PATH, else None; raises ToolError if `named` is none."""
    if named is None:
        found = shutil.which("tao")
        return Path(found).absolute() if found else None
    try:
        path = named.expanduser()
    except RuntimeError:  # ~ of nobody
        path = named
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ToolError(
            str(named),
            "is no program, and the setting tao_launcher names it",
            hint="it is bin/tao of the environment that holds nvidia-tao",
        )
    return path.absolute()


def launcher_version(launcher: Path) -> str:
    """Return the toolkit's version as the launcher says it; needs no Docker. Raises ToolError if it is another tao."""
    try:
        done = subprocess.run(
            [str(launcher), "info"],
            env=_environment({"TAO_DOCKER_DISABLE": "0"}),  # 1, as in TAO's own containers, knows no `info`
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(str(launcher), "could not be asked for its version", evidence=str(error)) from error
    printed = done.stdout.decode("utf-8", "replace")
    found = re.search(r"^toolkit_version: (\S+)", printed, re.MULTILINE)
    if found is None:
        raise ToolError(
            str(launcher),
            "is not NVIDIA's TAO launcher",
            evidence="\n".join(printed.strip().splitlines()[-3:])[-500:] or f"exit code {done.returncode}, no output",
            hint="name the right one by the setting tao_launcher",
        )
    return found.group(1)


def run_subtask(request: SubtaskRequest, *, results: Path, on_news: Callable[[str], None]) -> None:
    """Run the subtask in TAO's container and return when it succeeded; `results` then holds what it wrote.

    Paths among the arguments exist, or lie in the folder `results`. `on_news` is told each line of output.
    Raises ToolError with the lines that tell why it failed; the whole output, without the key, is in the log.
    """
    # Switched so, the launcher starts no container: it runs inside one, and mounts mean nothing.
    mounts = _for_us(Mounts() if os.environ.get("TAO_DOCKER_DISABLE") == "1" else user_mounts())
    with tempfile.TemporaryDirectory(prefix="tao2serve-tao-", ignore_cleanup_errors=True) as name:
        private = Path(name).resolve()  # mode 0700
        _require_shell_safe(private)
        mounts, _ = reach(mounts, results)
        arguments: list[str] = []
        for argument in request.arguments:
            if isinstance(argument, Path):
                mounts, inside = reach(mounts, argument)
                arguments.append(str(inside))
            else:
                arguments.append(argument)
        mounts, inside = reach(mounts, private)
        _write_request(request, arguments, private)
        write_mounts(mounts, private / "mounts.json")
        try:
            outcome = run_child(_child(request, private, entry=f"{inside}/{_ENTRY}"), on_line=on_news)
            code = _status(private)
        finally:
            (private / "key").unlink(missing_ok=True)  # our script removed it, if it came to run
    if code != 0:
        raise explain_failure(outcome, code=code, subject=f"tao {request.task} {request.subtask}")


def _for_us(mounts: Mounts) -> Mounts:
    """Return mounts whose container can read what only this user may; a user that is named stays."""
    options = json.loads(mounts.docker_options)
    options.pop("tty", None)  # false ends the container at once: its command is a shell without input
    # As NVIDIA's notebooks have it. Without, the container is root's, and so is what it writes.
    options.setdefault("user", f"{os.getuid()}:{os.getgid()}")
    return replace(mounts, docker_options=json.dumps(options))


def _require_shell_safe(folder: Path) -> None:
    if not _SHELL_SAFE.fullmatch(str(folder)):
        raise UsageError(
            str(folder),
            "cannot be named to the tao launcher, which quotes nothing",
            evidence="temporary folders must be paths of ASCII letters, digits and _./+@%=:,-",
            hint="set TMPDIR to such a folder",
        )


def _write_request(request: SubtaskRequest, arguments: list[str], private: Path) -> None:
    module = _MODULE.format(task=request.task, subtask=request.subtask)
    (private / "request.json").write_text(json.dumps({"module": module, "arguments": arguments}), encoding="utf-8")
    shutil.copyfile(container_entry.__file__, private / _ENTRY)
    key_file = private / "key"
    key_file.touch(mode=0o600)  # private before anything is in it
    key_file.write_text(request.key, encoding="utf-8")


def _child(request: SubtaskRequest, private: Path, *, entry: str) -> ChildRequest:
    return ChildRequest(
        name=str(request.launcher),
        # `run` has the launcher start any command in the task's container.
        command=(str(request.launcher), "model", request.task, "run", "python", entry),
        environment=_environment({MOUNTS_VARIABLE: str(private / "mounts.json")}),
        folder=private,
        log=request.log,
        timeout_s=request.timeout_s,
        secrets=(request.key,),
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED and not name.startswith("TAO2SERVE_")  # the key may be among them
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **ours}


def _status(private: Path) -> int | None:
    """Return the exit code our script left, None if it never ran; the launcher's own is 0 whatever failed inside."""
    try:
        code = json.loads((private / "status.json").read_text(encoding="utf-8"))["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, int) else 1
