"""Detect with a model file here, by the very code that serves it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tao2serve.errors import InputError
from tao2serve.export.execution import OpenModel
from tao2serve.runtime import Detections, DetectorParams, ImageError, ResizeMode, postprocess
from tao2serve.runtime.preprocess import MAX_BYTES, MAX_PIXELS, read_pixels

__all__ = ["detect", "neutral_picture"]


def detect(
    model: OpenModel,
    image: bytes,
    params: DetectorParams,
    *,
    subject: str | Path = "image",
    limits: tuple[int, int] = (MAX_BYTES, MAX_PIXELS),
    mode: ResizeMode = "lanczos",
) -> Detections:
    """Return the boxes of one image; `limits` are bytes and pixels, `mode` is how it is scaled.

    Raises InputError if the bytes are no image.
    """
    try:
        pixels, size = read_pixels(image, params, max_bytes=limits[0], max_pixels=limits[1], mode=mode)
    except ImageError as error:
        raise InputError(str(subject), "cannot be used", evidence=str(error)) from error
    outputs = model.see(pixels[None])
    return postprocess(outputs.coverage[0], outputs.bbox[0], params, image_size=size, boxes=outputs.boxes)


def neutral_picture(params: DetectorParams, *, seed: int = 0) -> bytes:
    """Return a JPEG of smooth random colours, always the same, for when the user gave no picture."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((params.width, params.height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()
