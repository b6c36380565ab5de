"""Which way to TAO this machine has: TAO's own container around us, NVIDIA's launcher, or docker."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tao2serve.tao.launcher import find_launcher
from tao2serve.tao.mounts import user_mounts
from tao2serve.tao.place import Place, Way, with_own_user

__all__ = ["find_place", "find_program", "find_way"]

_COMMAND = "detectnet_v2"
_LONGEST_FIRST_LINE = 4096


def find_way(launcher: Path | None, *, image: str = "") -> Way:
    """Return the way that is taken unless one is named; `launcher` and `image` are those that are asked for.

    `docker` is what is left, whether it is here or not. Raises ToolError if `launcher` is no program.
    """
    if os.environ.get("TAO_DOCKER_DISABLE") == "1" or shutil.which(_COMMAND) is not None:
        return "inside"
    return "launcher" if not image and find_launcher(launcher) is not None else "docker"


def find_program(way: Way, launcher: Path | None) -> Path | None:
    """Return the program of a way: the launcher, docker, or TAO's Python; None if it is not here."""
    if way == "launcher":
        return find_launcher(launcher)
    found = _python_of_tao() if way == "inside" else shutil.which("docker")
    return Path(found).absolute() if found else None


def find_place(launcher: Path | None) -> Place | None:
    """Return where TAO runs here, with the user's own mounts; None if there is no way to it.

    Raises ToolError if `launcher` is no program, UsageError for a mounts file that the launcher would not take.
    """
    way = find_way(launcher)
    program = find_program(way, launcher)
    if program is None:
        return None
    if way == "inside":
        return Place(way=way, program=program)
    return Place(way=way, program=program, mounts=with_own_user(user_mounts()))


def _python_of_tao() -> str | None:
    """Return the Python that runs detectnet_v2; an agent's task has one of its own on PATH, and that may lack TAO."""
    command = shutil.which(_COMMAND)
    words = _interpreter(Path(command)) if command else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    named = shutil.which(words[0]) if words and Path(words[0]).name.startswith("python") else None
    return named or shutil.which("python")


def _interpreter(script: Path) -> list[str]:
    """Return the words of a script's first line, none if it is no script."""
    try:
        with script.open("rb") as file:
            first = file.readline(_LONGEST_FIRST_LINE)
    except OSError:
        return []
    return first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
