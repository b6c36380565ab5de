"""Pictures like photographs, drawn: soft background, texture, and things in the colours that `write_light` finds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["draw_picture", "write_pictures"]

QUALITY = 88  # a camera's JPEG: about 0.1 byte a pixel here
_COLOURS = ((215, 30, 35), (25, 190, 40), (30, 40, 215))


def draw_picture(width: int, height: int, *, things: int, seed: int) -> bytes:
    """Return a JPEG with that many coloured things; the same arguments give the same bytes."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(60, 200, (max(height // 80, 2), max(width // 80, 2)), np.uint8))
    ground = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = Image.fromarray(random.integers(0, 256, (height, width), np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    ground = ground + (np.asarray(grain, dtype=np.float32) - 128.0) * 0.6
    tint = np.array([1.02, 1.0, 0.97], dtype=np.float32)
    pixels = np.clip(ground[..., None] * tint, 0, 255).astype(np.uint8)
    for _ in range(things):
        side = round(height * float(random.uniform(0.07, 0.16)))
        left, top = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        shade = random.uniform(0.85, 1.0, (side, side, 1)).astype(np.float32)
        pixels[top : top + side, left : left + side] = np.array(random.choice(_COLOURS), dtype=np.float32) * shade
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def write_pictures(folder: Path, *, width: int, height: int, count: int, things: int = 12) -> list[Path]:
    """Write `count` different pictures and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{width}x{height}_{index:02}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(draw_picture(width, height, things=things, seed=index))
    return paths
