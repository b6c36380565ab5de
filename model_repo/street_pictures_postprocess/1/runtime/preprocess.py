"""Image bytes to the network's input tensor, with limits checked before any pixel is decoded."""

from __future__ import annotations

import io
import warnings
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .values import DetectorParams, Float32

__all__ = ["ImageError", "preprocess", "read_pixels", "to_tensor"]

UInt8: TypeAlias = NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP")
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 64_000_000
# ITU-R 601-2, what TAO's grayscale preprocessing (PIL's "L") uses.
LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class ImageError(ValueError):
    """The bytes are no image we take; the text is one sentence for the caller."""


def preprocess(
    image_bytes: bytes,
    params: DetectorParams,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    mode: Literal["lanczos", "fast"] = "lanczos",
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
    mode: Literal["lanczos", "fast"] = "lanczos",
) -> tuple[UInt8, tuple[int, int]]:
    """Return ((H, W, 3) uint8 RGB of the network's size, (width, height) of the image as a person sees it).

    Takes JPEG, PNG, BMP and WebP. The EXIF orientation is applied first, so boxes are in the upright image's
    pixels. Alpha is dropped onto black. Resize is PIL LANCZOS to the network's size, aspect ratio not kept,
    as TAO trains and evaluates. Raises ImageError before decoding when a limit is passed.
    """
    if not image_bytes:
        raise ImageError("the body is empty; send the bytes of a JPEG, PNG, BMP or WebP image")
    if len(image_bytes) > max_bytes:
        raise ImageError(f"the image has {len(image_bytes):,} bytes, and the limit is {max_bytes:,}")
    image = _decode(image_bytes, max_pixels)
    size = (params.width, params.height)
    resized = (
        image.resize(size, Image.Resampling.LANCZOS)
        if mode == "lanczos"
        else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    )
    return np.asarray(resized), image.size


def to_tensor(pixels: UInt8, params: DetectorParams) -> Float32:
    """Return (C, H, W) float32 in [0, 1] for (H, W, 3) uint8 RGB; one channel is the luma of the resized colours."""
    scaled = pixels.astype(np.float32) / np.float32(255.0)
    if params.channels == 1:
        # TAO resizes in colour first and takes the luma of the result. Summed in this order, as a graph can too.
        red, green, blue = (scaled[..., index] * LUMA[index] for index in range(3))
        return np.ascontiguousarray((red + green + blue)[None])
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _decode(image_bytes: bytes, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Our own limit comes right after the header is read; PIL's warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(image_bytes), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(f"the image is {width}x{height} pixels, and the limit is {max_pixels:,} pixels")
        return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large: the limit is {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("the body is no image; JPEG, PNG, BMP and WebP are taken") from error
    except Exception as error:  # PIL's plugins raise many kinds on damaged files
        raise ImageError(f"the image cannot be decoded: {_sentence(error)}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit gray; PIL's own conversion would clip everything above 255 to white.
        wide = np.asarray(image, dtype=np.float32) / np.float32(257.0)
        image = Image.fromarray(np.clip(np.rint(wide), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return image.convert("RGB")


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160]
