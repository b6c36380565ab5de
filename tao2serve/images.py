"""Pictures: the files that a user names, and what a network takes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError
from tao2serve.values import IMAGE_MEDIA_TYPES, ModelSignature

__all__ = ["Pixels", "find_images", "network_input", "read_image"]

Pixels: TypeAlias = NDArray[np.uint8]


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


def network_input(pixels: Pixels, signature: ModelSignature) -> NDArray[Any]:
    """Return what a network takes for pixels (N, H, W, 3) uint8 RGB of its size: these, or (N, C, H, W) in [0, 1]."""
    from tao2serve.runtime import DetectorParams
    from tao2serve.runtime.preprocess import to_tensor

    if signature.takes_pixels:
        return pixels
    channels, height, width = signature.input.shape
    params = DetectorParams(channels=channels, height=height, width=width, bbox_scale=1.0, bbox_offset=0.0, classes=())
    return np.stack([to_tensor(image, params) for image in pixels])
