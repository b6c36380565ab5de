"""Where TAO runs, and the exact command that makes it: the launcher, Docker, or this very container.

The subtask itself is always started by `container_entry.py`, from a private folder that the container sees. Planning a
run changes nothing and knows no secret's value, so that what `--dry-run` shows is what a run does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias, get_args

from tao2serve.errors import UsageError
from tao2serve.tao.mounts import MOUNTS_VARIABLE, Mounts, reach
from tao2serve.tao.subtask import IMAGES, Subtask

__all__ = ["ENTRY", "WAYS", "Place", "TaoPlan", "Way", "plan_run", "with_own_user"]

Way: TypeAlias = Literal["launcher", "docker", "inside"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
ENTRY: Final = "entry.py"
_CLEARML_CACHE: Final = "CLEARML_CACHE_DIR"
# The launcher joins its arguments and hands them, unquoted, to two shells of this machine.
_SHELL_SAFE: Final = re.compile(r"[\w./+@%=:,-]+", re.ASCII)
_DOCKER_FLAGS: Final = {"shm_size": "--shm-size", "network": "--network"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where TAO runs. `program` is the launcher, docker, or inside a container its Python; `image` replaces NVIDIA's,
    which only Docker can be told. `environment` holds what the subtask needs and this process may not have."""

    way: Way
    program: Path
    mounts: Mounts = field(default_factory=Mounts)
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    image: str = ""

    def image_of(self, subtask: Subtask) -> str:
        return self.image or IMAGES[subtask.group]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoPlan:
    """One run, worked out: `command` runs on this machine, and ends in `inside` being run where TAO is."""

    subtask: Subtask
    way: Way
    command: tuple[str, ...]
    inside: tuple[str, ...]
    arguments: tuple[str, ...]  # of `inside`, as the container sees them
    image: str  # "" inside a container
    mounts: Mounts
    folder: Path  # private: script, request, key and mounts file are written there
    container: str  # the name Docker is given for it, "" where it is not ours to give
    environment: Mapping[str, str] = field(repr=False)  # of `command`, besides this process's own


def plan_run(subtask: Subtask, place: Place, *, results: Path, folder: Path, has_key: bool, name: str) -> TaoPlan:
    """Work out a run. Paths among the arguments exist, or lie in `results` or a folder that a mount shows.

    `folder` is the private one, `name` what a container would be called. Raises UsageError for a path that cannot be
    mounted, or a private folder that the launcher cannot be told.
    """
    subtask.require_shown_options(has_key=has_key)
    if place.way == "launcher" and not _SHELL_SAFE.fullmatch(str(folder)):
        raise UsageError(
            str(folder),
            "cannot be named to the tao launcher, which quotes nothing",
            evidence="temporary folders must be paths of ASCII letters, digits and _./+@%=:,-",
            hint="set TMPDIR to such a folder",
        )
    mounts, _ = reach(place.mounts, results) if place.way != "inside" else (Mounts(), None)
    arguments: list[str] = []
    for argument in subtask.arguments:
        if isinstance(argument, Path):
            mounts, seen = reach(mounts, argument)
            arguments.append(str(seen))
        else:
            arguments.append(argument)
    mounts, inside_folder = reach(mounts, folder)
    given = dict(place.environment)
    if place.way != "inside" and any(name.startswith("CLEARML_") for name in given):
        # A user without a home in the container could not write ClearML's cache, and would not be tracked.
        given.setdefault(_CLEARML_CACHE, str(inside_folder / "clearml"))
    command, mounts, environment = _command(subtask, place, mounts, given, inside_folder, folder, name)
    return TaoPlan(
        subtask=subtask, way=place.way, command=command, arguments=tuple(arguments),
        inside=subtask.words(tuple(arguments), has_key=has_key),
        image="" if place.way == "inside" else place.image_of(subtask),
        mounts=mounts, folder=folder, container=name if place.way == "docker" else "", environment=environment,
    )  # fmt: skip


def _command(
    subtask: Subtask,
    place: Place,
    mounts: Mounts,
    given: Mapping[str, str],
    inside: PurePosixPath,
    folder: Path,
    name: str,
) -> tuple[tuple[str, ...], Mounts, Mapping[str, str]]:
    entry = f"{inside}/{ENTRY}"
    program = str(place.program)
    if place.way == "inside":
        return (program, entry), mounts, given
    if place.way == "launcher":
        # `run` has the launcher start any command in the network's container.
        words: tuple[str, ...] = (program, subtask.group, subtask.network, "run", "python", entry)
        named = {variable for variable, _ in mounts.environment}
        added = tuple((variable, value) for variable, value in given.items() if variable not in named)
        mounts = replace(mounts, environment=(*mounts.environment, *added))
        return words, mounts, {MOUNTS_VARIABLE: str(folder / "mounts.json")}
    environment = {**given, **dict(mounts.environment)}
    words = (
        *(program, "run", "--rm", "--init", "--gpus", "all", "--name", name),
        *_options(json.loads(mounts.docker_options)),
        *(word for mount in mounts.mounts for word in ("-v", f"{mount.source}:{mount.destination}")),
        # By name alone: docker takes the values from its own environment, and no process list shows them.
        *(word for variable in environment for word in ("-e", variable)),
        *(place.image_of(subtask), "python", entry),
    )
    return words, mounts, environment


def _options(options: Mapping[str, Any]) -> Iterator[str]:
    """Say DockerOptions of a mounts file as `docker run` has them."""
    for option, value in options.items():
        if option == "user":
            yield from ("--user", str(value))
        elif option in _DOCKER_FLAGS:
            yield from (_DOCKER_FLAGS[option], str(value))
        elif option == "privileged" and value:
            yield "--privileged"
        elif option == "ulimits" and isinstance(value, dict):
            for limit, amount in value.items():
                yield from ("--ulimit", f"{limit}={amount}")
        elif option == "ports" and isinstance(value, dict):
            for inside, outside in value.items():
                yield from ("-p", f"{outside}:{inside}")


def with_own_user(mounts: Mounts, *, host_network: bool = False) -> Mounts:
    """Return mounts whose container can read what only this user may; a user or network that is named stays."""
    options = json.loads(mounts.docker_options)
    options.pop("tty", None)  # false ends the launcher's container at once: its command is a shell without input
    # As NVIDIA's notebooks have it. Without, the container is root's, and so is what it writes.
    options.setdefault("user", f"{os.getuid()}:{os.getgid()}")
    if host_network:
        options.setdefault("network", "host")
    return replace(mounts, docker_options=json.dumps(options))
