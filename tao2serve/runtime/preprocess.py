"""Image bytes to the network's input tensor."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from .header import ImageError
from .image import MAX_BYTES, MAX_PIXELS, decode, in_turn, one_sentence, read
from .resize import ENOUGH, RESIZE_MODES, ResizeMode, UInt8, resize_exactly, resize_fast
from .values import DetectorParams, Float32

__all__ = [
    "LUMA", "LUMA_ROUND", "LUMA_UNIT", "MAX_BYTES", "MAX_PIXELS", "RESIZE_MODES", "ImageError", "ResizeMode",
    "preprocess", "read_pixels", "to_tensor",
]  # fmt: skip

# Pillow's luma, in 65536ths: L = (19595 R + 38470 G + 7471 B + 32768) // 65536.
LUMA: Final = (19_595, 38_470, 7_471)
LUMA_ROUND: Final = 32_768
LUMA_UNIT: Final = 65_536


def preprocess(
    image_bytes: bytes,
    params: DetectorParams,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    mode: ResizeMode = "lanczos",
) -> tuple[Float32, tuple[int, int]]:
    """Return ((C, H, W) float32 in [0, 1], (width, height) of the image as a person sees it).

    What `read_pixels` reads, as `to_tensor` scales it; raises ImageError as `read_pixels` does.
    """
    pixels, size = read_pixels(image_bytes, params, max_bytes=max_bytes, max_pixels=max_pixels, mode=mode)
    return to_tensor(pixels, params), size


def read_pixels(
    image_bytes: bytes,
    params: DetectorParams,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    mode: ResizeMode = "lanczos",
) -> tuple[UInt8, tuple[int, int]]:
    """Return ((H, W, 3) uint8 RGB of the network's size, (width, height) of the image as a person sees it).

    Takes JPEG, PNG, BMP and WebP, in both modes the same bodies. The EXIF orientation is applied first, so boxes are
    in the upright image's pixels; aspect ratio is not kept; transparency is ignored, as TAO does. `lanczos` gives TAO's
    own numbers, `fast` decodes no more of a JPEG than the network can see and resizes cheaply. Raises ImageError, and
    nothing else whatever the bytes are; for a limit before any pixel is decoded.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode is {mode!r}, and the modes are {', '.join(RESIZE_MODES)}")
    size = params.width, params.height
    enough = (ENOUGH * size[0], ENOUGH * size[1]) if mode == "fast" else None
    header = read(image_bytes, max_bytes=max_bytes, max_pixels=max_pixels)
    with in_turn(header):
        picture = decode(header, at_least=enough)
        with one_sentence():
            resize = resize_fast if mode == "fast" else resize_exactly
            return resize(picture, size), picture.upright_size


def to_tensor(pixels: UInt8, params: DetectorParams) -> Float32:
    """Return (C, H, W) float32 in [0, 1] for (H, W, 3) uint8 RGB; one channel is the luma of the resized colours.

    The luma is Pillow's convert("L"), as in TAO 5's inferencer, a whole number before the division by 255. No number
    on the way to it reaches 2^24, so that a graph in float32 computes the same bits from LUMA, in any order.
    """
    if params.channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    tensor = np.empty((params.channels, *pixels.shape[:2]), np.float32)
    # One pass that converts and transposes, one that divides in place: the quickest of ten ways that give these bits.
    np.copyto(tensor, pixels.transpose(2, 0, 1))
    tensor /= np.float32(255.0)
    return tensor
