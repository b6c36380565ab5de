"""Pictures: the files that a user names, one, several or folders of them, and what a network takes of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError, UsageError
from tao2serve.values import IMAGE_MEDIA_TYPES, ModelSignature

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NamedImage", "Pixels", "find_images", "name_images", "network_input", "open_upright", "read_image"]

Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """A picture of a run, with names that no other picture of it has.

    `name` is its path below the folder that was given, with slashes, or its file's name, and its absolute path where
    another picture has that already; `stem` is that of files made from it: what is below the folder without the
    ending, and with a number where two would be equal.
    """

    path: Path
    name: str
    stem: str


def find_images(source: Path) -> tuple[Path, ...]:
    """Return the images of a folder by name, or the one image; told by the ending of the file's name.

    Subfolders and empty files are left out. Raises InputError if there is no image.
    """
    if not source.exists():
        raise InputError(str(source), "does not exist", hint="name a folder of images")
    try:
        candidates = sorted(source.iterdir()) if source.is_dir() else [source]
        chosen = tuple(path for path in candidates if _is_image(path))
    except OSError as error:
        raise InputError(str(source), "cannot be read", evidence=str(error)) from error
    if not chosen:
        endings = ", ".join(sorted(IMAGE_MEDIA_TYPES))
        if not source.is_dir():
            raise InputError(
                str(source),
                "is no image",
                evidence=f"it is empty, or its name does not end in {endings}",
                hint="name a picture, or a folder of pictures",
            )
        raise InputError(
            str(source),
            "holds no image",
            evidence=f"{len(candidates)} entries, none a non-empty {endings}",
            hint="name a folder of images",
        )
    return chosen


def name_images(
    sources: Sequence[Path], *, recursive: bool = False, output: Path | None = None
) -> tuple[NamedImage, ...]:
    """Return the pictures that files and folders name, in that order, each once, with names of their own.

    A file that is named is taken whatever its ending, and though it may not be there: reading it will tell. Of a
    folder all that is named like an image is taken, by name, also what is empty or a link to nothing; with
    `recursive` that of its subfolders too, without `output`, which holds what an earlier run drew, and without
    folders that are links. Raises InputError for a folder without images and if nothing that is named exists,
    UsageError if `output` is one of the folders, or holds a picture that is named.
    """
    if not any(_exists(source) for source in sources):
        raise InputError(str(sources[0]), "does not exist", hint="name pictures, or folders of them")
    names = _Names()
    drawn = os.path.realpath(output) if output is not None else None
    for source in sources:
        is_folder = _exists(source) and source.is_dir()
        folder = source if is_folder else source.parent
        if drawn is not None and os.path.realpath(folder) == drawn:
            raise UsageError(
                "--output",
                f"is {folder}, where the pictures lie",
                evidence="a run over that folder would take the drawings for pictures",
                hint="name another folder",
            )
        if not is_folder:
            names.add(source, Path(source.name))
            continue
        for path in _walk(source, left_out=drawn, recursive=recursive):
            names.add(path, path.relative_to(source))
    return tuple(names.found)


def read_image(path: Path) -> bytes:
    """Return the file's bytes; raises InputError if it cannot be read or is empty."""
    try:
        if path.exists() and not path.is_file():  # a pipe could be waited for, and a device read, for ever
            raise InputError(str(path), "is no file")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    if not content:
        raise InputError(str(path), "cannot be read", evidence="the file is empty")
    return content


def open_upright(image: bytes) -> Image.Image:
    """Return the pixels that an endpoint sees, as an RGB picture that stands upright, of any size.

    Raises InputError if it cannot be decoded.
    """
    from tao2serve.runtime import ImageError
    from tao2serve.runtime.image import decode, read, upright

    try:
        # An endpoint has its own limits, and took the picture.
        return upright(decode(read(image, max_bytes=sys.maxsize, max_pixels=sys.maxsize))).convert("RGB")
    except ImageError as error:
        raise InputError("the picture", "cannot be decoded", evidence=str(error)) from error


class _Names:
    """Pictures found so far; a file that comes again is left out, equal names get numbers."""

    def __init__(self) -> None:
        self.found: list[NamedImage] = []
        self._files: set[str] = set()
        self._names: set[str] = set()
        self._stems: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._folders: dict[Path, str] = {}

    def add(self, path: Path, below: Path) -> None:
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = os.path.realpath(path.parent)
        file = f"{folder.rstrip('/')}/{path.name}"
        if file in self._files:
            return
        self._files.add(file)
        name = below.as_posix() if below.as_posix() not in self._names else file
        self._names.add(name)
        self.found.append(NamedImage(path=path, name=name, stem=self._stem(below.with_suffix("").as_posix())))

    def _stem(self, wanted: str) -> str:
        stem, number = wanted, self._numbers.get(wanted, 1)
        while stem in self._stems:
            number += 1
            stem = f"{wanted}-{number}"
        self._numbers[wanted] = number
        self._stems.add(stem)
        return stem


def _walk(folder: Path, *, left_out: str | None, recursive: bool) -> Iterator[Path]:
    """Yield what is named like an image, whether or not it can be read: who reads it names what cannot be."""
    any_found = False

    def unreadable(error: OSError) -> None:
        raise InputError(str(error.filename or folder), "cannot be read", evidence=error.strerror or str(error))

    for place, folders, files in os.walk(folder, onerror=unreadable):
        kept = sorted(name for name in folders if os.path.realpath(f"{place}/{name}") != left_out) if recursive else []
        folders[:] = kept
        for name in sorted(files):
            path = Path(place, name)
            if path.suffix.lower() in IMAGE_MEDIA_TYPES:
                any_found = True
                yield path
    if not any_found:
        raise InputError(
            str(folder),
            "holds no image" + (", and neither do its subfolders" if recursive else ""),
            evidence=f"no file is named like one: {', '.join(sorted(IMAGE_MEDIA_TYPES))}",
            hint="name pictures, or folders of them",
        )


def _exists(path: Path) -> bool:
    """Whether it is there, as far as one may know: a name too long for the system, or in a closed folder, is not."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_image(path: Path) -> bool:
    """Whether it is a picture by its name, and a file that is not empty; one that cannot be looked at is none."""
    try:
        return path.suffix.lower() in IMAGE_MEDIA_TYPES and path.is_file() and bool(path.stat().st_size)
    except OSError:
        return False


def network_input(pixels: Pixels, signature: ModelSignature) -> NDArray[Any]:
    """Return what a network takes for pixels (N, H, W, 3) uint8 RGB of its size: these, or (N, C, H, W) in [0, 1]."""
    from tao2serve.runtime import DetectorParams
    from tao2serve.runtime.preprocess import to_tensor

    if signature.takes_pixels:
        return pixels
    channels, height, width = signature.input.shape
    params = DetectorParams(channels=channels, height=height, width=width, bbox_scale=1.0, bbox_offset=0.0, classes=())
    return np.stack([to_tensor(image, params) for image in pixels])
