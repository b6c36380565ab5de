"""Picture files that a user names: one, or a folder of them."""

from __future__ import annotations

from pathlib import Path

from tao2serve.errors import InputError
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["find_images", "read_image"]


def find_images(source: Path) -> tuple[Path, ...]:
    """Return the images of a folder by name, or the one image; told by the ending of the file's name.

    Subfolders and empty files are left out. Raises InputError if there is no image.
    """
    if not source.exists():
        raise InputError(str(source), "does not exist", hint="name a folder of images")
    try:
        candidates = sorted(source.iterdir()) if source.is_dir() else [source]
        chosen = tuple(
            path
            for path in candidates
            if path.suffix.lower() in IMAGE_MEDIA_TYPES and path.is_file() and path.stat().st_size
        )
    except OSError as error:
        raise InputError(str(source), "cannot be read", evidence=str(error)) from error
    if not chosen:
        raise InputError(
            str(source),
            "holds no image",
            evidence=f"{len(candidates)} entries, none a non-empty {', '.join(sorted(IMAGE_MEDIA_TYPES))}",
            hint="name a folder of images",
        )
    return chosen


def read_image(path: Path) -> bytes:
    """Return the file's bytes; raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
