"""From a client's path to a file in the folder, or to nothing at all."""

from __future__ import annotations

from pathlib import Path

_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 3000


class UnsafePathError(ValueError):
    """The path is empty, leaves the folder, or cannot be a file name."""


def safe_parts(path: str) -> tuple[str, ...]:
    """Split a decoded path into names; raise UnsafePathError for any that could leave the folder."""
    parts = tuple(part for part in path.split("/") if part)
    if not parts:
        raise UnsafePathError("the path is empty")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise UnsafePathError("the path is not valid text") from error
    for part in parts:
        if part in (".", "..") or "\0" in part:
            raise UnsafePathError("the path leaves the folder")
    if max(sizes) > _LONGEST_NAME_BYTES or sum(sizes) > _LONGEST_PATH_BYTES:
        raise UnsafePathError("the path is too long")
    return parts


def locate(root: Path, path: str) -> Path:
    """Return the place of a path below `root`; no component of it is a symbolic link."""
    place = root
    for part in safe_parts(path):
        place = place / part
        if place.is_symlink():
            raise UnsafePathError("the path goes through a link")
    return place
