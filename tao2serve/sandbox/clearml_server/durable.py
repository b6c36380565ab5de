"""Files that are whole or not there, also after a crash: written aside, forced to the disk, renamed into place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def publish(temporary: Path, place: Path, *, root: Path) -> None:
    """Rename a finished file into place below `root`, making its folders; all of it is on the disk on return."""
    missing = [folder for folder in (place.parent, *place.parent.parents) if folder != root and not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(place)
    for folder in (place.parent, *(folder.parent for folder in missing)):
        sync_folder(folder)


def write_private(path: Path, content: bytes) -> None:
    """Write a small file that only its owner can read, in one step."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    publish(temporary, path, root=path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
