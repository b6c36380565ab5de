"""NVIDIA's `tao` launcher as a program: it starts TAO's container and runs one subtask in it.

The launcher pins old versions of what the ClearML SDK needs and lives in an environment of its own. What it
does with its arguments, mounts and exit code is written down in docs/tao-launcher.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tao2serve.errors import ToolError
from tao2serve.tao.running import child_environment

__all__ = ["LAUNCHER_VERSION", "find_launcher", "launcher_version"]

LAUNCHER_VERSION: Final = "6.26.3"  # the release all of this was established with
_VERSION_LIMIT_S: Final = 60.0


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
            env=child_environment({"TAO_DOCKER_DISABLE": "0"}),  # 1, as in TAO's own containers, knows no `info`
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
