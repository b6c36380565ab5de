"""The detections of one picture, whatever layout they are written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tao2serve.values import Prediction

__all__ = ["PictureDetections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureDetections:
    """What was found in one picture; boxes are x1, y1, x2, y2 in pixels of the upright picture.

    `name` is the picture's path below its folder, with slashes, and unique in a run: of two with one path the second
    has its absolute path. `document` is the answer of an endpoint as it came, and empty where there was none.
    """

    name: str
    width: int
    height: int
    predictions: tuple[Prediction, ...]
    document: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""  # as the user named it

    @property
    def stem(self) -> str:
        """The name without its ending: how label files are matched with pictures."""
        return PurePosixPath(self.name).with_suffix("").as_posix()

    @property
    def size(self) -> dict[str, int]:
        """The `image` member of a document."""
        return {"width": self.width, "height": self.height}
