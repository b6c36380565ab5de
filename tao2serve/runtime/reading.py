"""Image bytes to what a network takes, in a server: a refusal is a value, and large pictures leave no memory behind."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .header import DamagedImageError, ImageError
from .memory import LARGE_PIXELS, give_back
from .preprocess import ResizeMode, read_pixels, to_tensor
from .values import DetectorParams

__all__ = ["ReadInput", "read_input"]

ReadInput: TypeAlias = tuple[NDArray[Any], tuple[int, int]]


def read_input(
    image: bytes, params: DetectorParams, *, as_pixels: bool, max_bytes: int, max_pixels: int, mode: ResizeMode
) -> ReadInput | ImageError:
    """Return ((H, W, 3) uint8 or (C, H, W) float32, (width, height)), or why the image is refused.

    The refusal has no traceback, which would keep the picture in memory for a while. After a large picture, and after
    one that turned out to be damaged, whose size nobody says, free memory is given back.
    """
    try:
        pixels, size = read_pixels(image, params, max_bytes=max_bytes, max_pixels=max_pixels, mode=mode)
        array = np.ascontiguousarray(pixels if as_pixels else to_tensor(pixels, params))
    except ImageError as error:
        refusal, is_damaged = ImageError(str(error)), isinstance(error, DamagedImageError)
    else:
        if size[0] * size[1] > LARGE_PIXELS:
            give_back()
        return array, size
    if is_damaged:
        give_back()
    return refusal
