"""KITTI label files: what is really in an image.

One line an object, 15 columns: class, truncation, occlusion, alpha, left, top, right, bottom, seven of the
third dimension; a 16th, a confidence, is allowed and not used. Read as TAO's dataset converter reads them
(docs/tao.md): class names become lower case, and an object less than a pixel wide or high is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tao2serve.errors import InputError
from tao2serve.runtime.values import Float32

__all__ = ["LabelFolder", "Labels", "match_labels", "read_labels"]

_MAX_BYTES = 4 << 20  # KITTI's own files stay below 3 KB
_MAX_FILES = 1_000_000
_COLUMNS = (15, 16)
_FARTHEST_PIXEL = 1e6
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The objects of one image, in the order of the file.

    `names` are the dataset's class names in lower case, not yet mapped to target classes; `xyxy` is (N, 4) in
    pixels of the image, and may reach beyond it.
    """

    path: Path
    names: tuple[str, ...]
    xyxy: Float32
    left_out: int = 0  # objects without width or height in whole pixels

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFolder:
    """Which label file belongs to which image, by the stem of their names, and what has no partner."""

    folder: Path
    pairs: tuple[tuple[Path, Path], ...]  # image, label file
    images_without_labels: tuple[Path, ...]
    labels_without_images: tuple[Path, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Say in words what is left out of a comparison; empty when all have a partner."""
        found = []
        if self.images_without_labels:
            bare = self.images_without_labels
            found.append(f"{_counted(bare, 'image')} without a label file in {self.folder}: {_examples(bare)}")
        if self.labels_without_images:
            unused = self.labels_without_images
            found.append(f"{_counted(unused, 'label file')} without an image: {_examples(unused)}")
        return tuple(found)


def read_labels(path: Path) -> Labels:
    """Read one label file; an empty one is an image without objects.

    Raises InputError, with file and line, for a line that is not one of KITTI's.
    """
    names: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    left_out = 0
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        left, top, right, bottom = _box(path, number, fields)
        # TAO compares whole pixels here and keeps the fractions otherwise.
        if int(left) >= int(right) or int(top) >= int(bottom):
            left_out += 1
            continue
        names.append(fields[0].lower())
        boxes.append((left, top, right, bottom))
    return Labels(
        path=path, names=tuple(names), xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4), left_out=left_out
    )


def match_labels(images: Iterable[Path], folder: Path) -> LabelFolder:
    """Find the label file `<stem>.txt` of each image; the order of the images is kept.

    Raises InputError if `folder` cannot be read, if no image has a label file, or if two images share one.
    """
    files = _label_files(folder)
    pairs: list[tuple[Path, Path]] = []
    bare: list[Path] = []
    taken: dict[str, Path] = {}
    for image in images:
        label = files.get(image.stem)
        if label is None:
            bare.append(image)
            continue
        if image.stem in taken:
            raise InputError(str(label), "belongs to two images", evidence=f"{taken[image.stem].name}, {image.name}")
        taken[image.stem] = image
        pairs.append((image, label))
    if not pairs:
        raise InputError(
            str(folder),
            "has no label file for any of the images",
            evidence=f"images: {_examples(bare)}; label files: {_examples(files.values())}",
            hint="a label file has the name of its image and ends in .txt",
        )
    unused = tuple(path for stem, path in sorted(files.items()) if stem not in taken)
    return LabelFolder(
        folder=folder, pairs=tuple(pairs), images_without_labels=tuple(bare), labels_without_images=unused
    )


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise InputError(str(path), "is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(str(path), "is too large for a label file", evidence=f"more than {_MAX_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), "is not a text file", evidence=str(error)[:200]) from error


def _box(path: Path, number: int, fields: list[str]) -> tuple[float, float, float, float]:
    subject, line = f"{path}, line {number}", " ".join(fields)[:200]
    if len(fields) not in _COLUMNS:
        raise InputError(
            subject,
            f"has {len(fields)} columns, not the 15 of a KITTI label",
            evidence=line,
            hint="class truncation occlusion alpha left top right bottom, then seven numbers (0 will do); "
            "a class name has no space in it",
        )
    try:
        numbers = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise InputError(subject, "has a column that is no number", evidence=line) from error
    left, top, right, bottom = numbers[3:7]
    if not all(math.isfinite(x) and abs(x) <= _FARTHEST_PIXEL for x in (left, top, right, bottom)):
        raise InputError(subject, "has a box that is not in pixels", evidence=line)
    return left, top, right, bottom


def _label_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    try:
        for path in folder.iterdir():
            if path.suffix == ".txt":
                found[path.stem] = path
            if len(found) > _MAX_FILES:
                raise InputError(str(folder), "has too many label files", evidence=f"more than {_MAX_FILES}")
    except OSError as error:
        raise InputError(str(folder), "is not a folder that can be read", evidence=error.strerror or "") from error
    return found


def _examples(paths: Iterable[Path]) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") or "none"


def _counted(paths: tuple[Path, ...], noun: str) -> str:
    return f"{len(paths)} {noun}{'s' * (len(paths) != 1)}"
