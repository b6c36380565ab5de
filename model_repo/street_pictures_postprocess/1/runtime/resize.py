"""Two ways to the network's size: TAO's own, and one that costs a fraction and differs a little.

Measured on photographs and scenes, times and differences from LANCZOS: docs/preprocessing.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .image import Picture, upright

__all__ = ["ENOUGH", "RESIZE_MODES", "ResizeMode", "UInt8", "resize_exactly", "resize_fast"]

UInt8: TypeAlias = NDArray[np.uint8]
ResizeMode: TypeAlias = Literal["lanczos", "fast"]
RESIZE_MODES: Final[tuple[ResizeMode, ...]] = ("lanczos", "fast")

# A picture may be shrunk by a whole factor, in decoding or after it, if at least this part of the network's size is
# left in both directions: 1080 rows become 540 for a network of 544.
ENOUGH: Final = 0.95
# Up to here OpenCV's bicubic interpolation is closest to LANCZOS; above it skips source pixels, and linear is closer.
MOST_FOR_CUBIC: Final = 1.4


def resize_exactly(picture: Picture, size: tuple[int, int]) -> UInt8:
    """Return (H, W, 3) RGB of `size` (width, height), upright, by Pillow's LANCZOS: the numbers of TAO.

    nvidia-tao-deploy 7.3.0 (cv/detectnet_v2/dataloader.py) and TAO 5's inferencer open with Pillow, convert("RGB") and
    resize((width, height), LANCZOS). Neither looks at EXIF.
    """
    # Gray is resized as one channel: LANCZOS treats channels alike, so that the result is the same.
    return _colours(np.asarray(upright(picture).resize(size, Image.Resampling.LANCZOS)))


def resize_fast(picture: Picture, size: tuple[int, int]) -> UInt8:
    """Return (H, W, 3) RGB of `size` (width, height), upright, close to LANCZOS.

    With OpenCV if it is installed, with Pillow otherwise; the two differ by a few levels.
    """
    target = size[::-1] if picture.turned else size
    image, box = picture.image, picture.box
    if max(picture.width / target[0], picture.height / target[1]) < ENOUGH:
        # Of a small picture there is nothing to leave out, and at half size bicubic cost 0.7 to 1.8 points of mAP.
        return resize_exactly(picture, size)
    cv2 = opencv()
    # OpenCV knows no parts of pixels, so that a JPEG reduced from a size that 2, 4 or 8 does not divide is Pillow's.
    if cv2 is not None and box == (0, 0, *image.size):
        pixels = _by_opencv(cv2, np.asarray(image), target)
    else:
        pixels = _by_pillow(image, box, target)
    return _colours(_turned(pixels, picture.orientation))


@cache
def opencv() -> Any:
    """Return the module cv2, or None where it is missing or does not load."""
    import sys

    known = "cv2" in sys.modules
    try:
        import cv2
    except Exception:  # a build for another numpy raises more than ImportError
        return None
    if not known:
        # A resize takes a millisecond: waking threads for it costs more. Who imported it before us has decided already.
        cv2.setNumThreads(1)
    return cv2


def _by_opencv(cv2: Any, pixels: UInt8, target: tuple[int, int]) -> UInt8:
    height, width = pixels.shape[:2]
    factors = _whole_factor(width, target[0]), _whole_factor(height, target[1])
    if factors != (1, 1):
        width, height = -(-width // factors[0]), -(-height // factors[1])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    ratio = max(width / target[0], height / target[1])
    kind = cv2.INTER_CUBIC if ratio <= MOST_FOR_CUBIC else cv2.INTER_LINEAR
    resized: UInt8 = cv2.resize(pixels, target, interpolation=kind)
    return resized


def _by_pillow(image: Image.Image, box: tuple[float, float, float, float], target: tuple[int, int]) -> UInt8:
    factors = _whole_factor(image.width, target[0]), _whole_factor(image.height, target[1])
    if factors != (1, 1):
        image = image.reduce(factors)
        box = (0, 0, box[2] / factors[0], box[3] / factors[1])
    # Its filters widen with the ratio, so that no source pixel is skipped. Hamming's takes 0.6 of the time, and cost
    # up to 0.3 points of mAP.
    return np.asarray(image.resize(target, Image.Resampling.BICUBIC, box=box))


def _whole_factor(length: int, target: int) -> int:
    """Return by what whole number a length can be divided and still be enough for the target."""
    return max(int(length / (ENOUGH * target)), 1)


def _turned(pixels: UInt8, orientation: int) -> UInt8:
    """Put an array upright as `upright` does an image; a view, not a copy."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _colours(pixels: UInt8) -> UInt8:
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    return np.ascontiguousarray(pixels)
