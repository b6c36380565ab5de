"""The mounts file of NVIDIA's launcher: which folders of this machine its container sees, and where."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tao2serve.errors import UsageError

__all__ = ["Mount", "Mounts", "reach", "read_mounts", "require_mountable", "user_mounts", "write_mounts"]

MOUNTS_VARIABLE: Final = "LAUNCHER_MOUNTS"  # where the launcher itself looks before ~/.tao_mounts.json
_DEFAULT: Final = Path("~/.tao_mounts.json")
_MAX_BYTES: Final = 1 << 20
_EXAMPLE: Final = '{"Mounts": [{"source": "/data/tao", "destination": "/workspace/tao"}]}'
_FIELDS: Final = frozenset({"Mounts", "Envs", "DockerOptions"})
# The launcher ends in an AssertionError on any other (nvidia-tao 6.26.3, docker_handler.py).
_DOCKER_OPTIONS: Final = frozenset({"user", "ports", "shm_size", "ulimits", "privileged", "network", "tty"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One file or folder of this machine, and its path in the container; both absolute, without symlinks."""

    source: Path
    destination: PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """What a mounts file says; `docker_options` stays the JSON it was, since Docker interprets it."""

    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # values may be secrets
    docker_options: str = "{}"

    def inside(self, path: Path) -> PurePosixPath | None:
        """Return the container's path of an existing file or folder, None if no mount shows it there."""
        resolved = path.resolve()
        for mount in sorted(self.mounts, key=lambda mount: len(mount.source.parts), reverse=True):
            if resolved.is_relative_to(mount.source):
                found = mount.destination / resolved.relative_to(mount.source)
                if self._shown_by(found) == mount:
                    return found
        return None

    def outside(self, path: PurePosixPath) -> Path | None:
        """Return this machine's path of a path in the container, None if no mount reaches there."""
        mount = self._shown_by(path)
        return mount.source / path.relative_to(mount.destination) if mount else None

    def _shown_by(self, path: PurePosixPath) -> Mount | None:
        """Return the mount a container path lies in: the deepest one, which hides those above it."""
        holding = [mount for mount in self.mounts if path.is_relative_to(mount.destination)]
        return max(holding, key=lambda mount: len(mount.destination.parts), default=None)


def reach(mounts: Mounts, path: Path) -> tuple[Mounts, PurePosixPath]:
    """Return mounts under which the container sees `path`, and where; added is no more than `path` itself.

    What is added keeps the path it has here: the launcher's own messages then name paths the user knows.
    Raises UsageError for a path that Docker cannot mount.
    """
    found = mounts.inside(path)
    if found is not None:
        return mounts, found
    require_mountable(path)
    resolved = path.resolve()
    added = Mount(source=resolved, destination=PurePosixPath(resolved))
    return replace(mounts, mounts=(*mounts.mounts, added)), added.destination


def require_mountable(path: Path) -> None:
    """Raise UsageError for a path of this machine that Docker cannot mount."""
    resolved = path.resolve()
    if ":" in str(resolved) or not str(resolved).isprintable():  # docker-py joins source:destination:mode
        raise UsageError(
            str(path),
            "cannot be mounted into a container",
            evidence=f"the path is {str(resolved)!r}; Docker takes no ':' and no unprintable character",
            hint="rename it, or copy it elsewhere",
        )


def user_mounts() -> Mounts:
    """Return the user's own mounts: of $LAUNCHER_MOUNTS, else of ~/.tao_mounts.json, else none."""
    named = os.environ.get(MOUNTS_VARIABLE)
    if named:
        return read_mounts(Path(named))
    default = _DEFAULT.expanduser()
    return read_mounts(default) if default.exists() else Mounts()


def read_mounts(path: Path) -> Mounts:
    """Read a mounts file as the launcher does; what would end the launcher in a traceback is a UsageError.

    Values of environment variables may be secrets and are never part of an error.
    """
    document = _read_json(path)
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise _wrong(path, f"has a field the launcher does not know: {unknown[0]!r}"[:200])
    if "Mounts" not in document:
        raise _wrong(path, "has no field Mounts")
    entries = _entries(path, document, "Mounts", ("source", "destination"))
    # Docker is given them by source, so that of two with the same source only the last counts.
    mounts = tuple({mount.source: mount for mount in (_mount(path, entry) for entry in entries)}.values())
    environment = tuple(
        (str(entry["variable"]), str(entry["value"]))
        for entry in _entries(path, document, "Envs", ("variable", "value"))
    )
    options = document.get("DockerOptions", {})
    if not isinstance(options, dict):
        raise _wrong(path, "has DockerOptions that are no object")
    foreign = sorted(set(options) - _DOCKER_OPTIONS)
    if foreign:
        raise _wrong(path, f"has a Docker option the launcher refuses: {foreign[0]!r}"[:200])
    return Mounts(mounts=mounts, environment=environment, docker_options=json.dumps(options))


def write_mounts(mounts: Mounts, path: Path) -> None:
    """Write a new mounts file that only this user can read: the variables in it may be secrets."""
    document = {
        "Mounts": [{"source": str(mount.source), "destination": str(mount.destination)} for mount in mounts.mounts],
        "Envs": [{"variable": name, "value": value} for name, value in mounts.environment],
        "DockerOptions": json.loads(mounts.docker_options),
    }
    path.touch(mode=0o600, exist_ok=False)  # private before anything is in it
    path.write_text(json.dumps(document), encoding="utf-8")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # NUL in the name; ~ of nobody
        raise UsageError(
            str(path),
            "cannot be read, and names the launcher's mounts",
            evidence=str(error),
            hint=f"write it, such as {_EXAMPLE}, or unset {MOUNTS_VARIABLE}",
        ) from error
    if len(content) > _MAX_BYTES:
        raise _wrong(path, f"is larger than {_MAX_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, "is not JSON", evidence=str(error)[:200]) from error
    if not isinstance(document, dict):
        raise _wrong(path, "is no JSON object")
    return document


def _entries(path: Path, document: Mapping[str, Any], field: str, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the entries of a list field, each an object with both names."""
    entries = document.get(field, [])
    if not isinstance(entries, list):
        raise _wrong(path, f"has a field {field} that is no list")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str | int | float) for name in names):
            raise _wrong(path, f"has an entry without {names[0]} and {names[1]}: {field}[{position}]")
    return entries


def _mount(path: Path, entry: Mapping[str, Any]) -> Mount:
    # realpath on both, as the launcher has it: it follows this machine's symlinks for the container's path too.
    try:
        source, destination = (
            Path(os.path.realpath(Path(str(entry[name])).expanduser())) for name in ("source", "destination")
        )
        exists = source.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a folder we may not look into; NUL; ~ of nobody
        raise _wrong(path, "has a mount that is no path", evidence=str(error)) from error
    if not exists:
        raise UsageError(
            str(path),
            "mounts a folder that does not exist",
            evidence=f"source {str(source)!r}",
            hint=f"create the folder, or take its entry out of {path}",
        )
    return Mount(source=source, destination=PurePosixPath(destination))


def _wrong(path: Path, fact: str, *, evidence: str = "") -> UsageError:
    return UsageError(str(path), fact, evidence=evidence, hint=f"a mounts file of the tao launcher reads {_EXAMPLE}")
