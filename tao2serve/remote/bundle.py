"""Folders as zip files: the same content is the same file, and what is unpacked stays in its folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from tao2serve.errors import ServiceError
from tao2serve.registry.cache import Store

__all__ = ["STORE", "unpack", "write_zip"]

STORE: Final = Store(name="remote", limit_files=256, limit_bytes=8 << 30)
_WRITTEN: Final = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES: Final = 1 << 20


def write_zip(folder: Path, target: Path) -> Path:
    """Write the files below `folder` into `target` and return it; pictures and models are stored as they are."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _WRITTEN)
                member.file_size = path.stat().st_size
                with path.open("rb") as source, archive.open(member, "w") as into:
                    shutil.copyfileobj(source, into, _CHUNK_BYTES)
    return target


def unpack(archive: Path, folder: Path) -> tuple[Path, ...]:
    """Unpack into `folder` and return the files; raises ServiceError for an archive that would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            parts = PurePosixPath(member.filename).parts
            if member.is_dir() or not parts or ".." in parts or parts[0] == "/":
                raise ServiceError(archive.name, "holds a name that leads out of its folder", evidence=member.filename)
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("wb") as into:
                shutil.copyfileobj(source, into, _CHUNK_BYTES)
            written.append(target)
    return tuple(written)
