"""The code that ships to servers: image bytes → tensor, grids → boxes, and ClearML Serving's `Preprocess`.

This folder is copied verbatim into Triton models and into ClearML Serving's preprocess package, so it imports
nothing of tao2serve, only itself (relatively), the standard library, numpy and Pillow.
"""

from __future__ import annotations

from typing import Any

from .postprocess import postprocess, postprocess_batch
from .preprocess import RESIZE_MODES, ImageError, ResizeMode, preprocess
from .values import ClassParams, Detections, DetectorParams

__all__ = [
    "RESIZE_MODES",
    "ClassParams",
    "Detections",
    "DetectorParams",
    "ImageError",
    "ResizeMode",
    "postprocess",
    "postprocess_batch",
    "preprocess",
]


def __getattr__(name: str) -> Any:
    # ClearML Serving takes the class `Preprocess` from the package it is handed; nobody else needs what it imports.
    if name == "Preprocess":
        from .endpoint import Preprocess

        return Preprocess
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
