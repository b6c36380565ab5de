"""Pictures as clients send them: every format, colour mode and orientation, and files made to cost much."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tao2serve.runtime import DetectorParams

ORIENTATION = 0x0112
WIDTH, HEIGHT = 80, 48


def params(*, channels: int = 3, width: int = WIDTH, height: int = HEIGHT) -> DetectorParams:
    return DetectorParams.from_dict(
        {
            "family": "detectnet_v2",
            "input": {"channels": channels, "height": height, "width": width},
            "bbox_scale": 35.0,
            "bbox_offset": 0.5,
            "classes": [{"name": "car"}],
        }
    )


def picture(width: int = 200, height: int = 100) -> Image.Image:
    """Draw a smooth picture whose corners differ, so that every way to turn it is another picture."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    red, green = x * 255 / width, y * 255 / height
    blue = 127 + 100 * np.sin(x / width * 9) * np.cos(y / height * 5)
    return Image.fromarray(np.stack((red, green, blue), axis=2).astype(np.uint8))


def encode(image: Image.Image, *, format: str = "PNG", orientation: int | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if orientation is not None:
        options["exif"] = image.getexif()
        options["exif"][ORIENTATION] = orientation
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """Write a PNG from its parts; `rows` are filtered rows before compression, `extra` comes before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def png_16_bit(values: np.ndarray) -> bytes:
    """Write a 16-bit PNG of (H, W) gray or (H, W, 3) RGB, which Pillow cannot."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(width, height, depth=16, colour=0 if values.ndim == 2 else 2, rows=filtered)


def bmp(
    width: int, height: int, *, bits: int = 24, compression: int = 0, masks: bytes = b"", rows: bytes = b""
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    start = 14 + len(header) + len(masks)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + masks + rows


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def huge(side: int) -> Iterator[tuple[str, bytes]]:
    """Yield files of a few bytes that claim `side` x `side` pixels, by the name of their format."""
    yield "png", png(side, side)
    yield "png-gray16", png(side, side, depth=16, colour=0)
    yield "bmp", bmp(side, side)
    yield "bmp-top-down", bmp(side, -side)
    small = encode(picture(16, 16), format="JPEG")
    size = struct.pack(">HH", 16, 16)
    yield "jpeg", small.replace(size, struct.pack(">HH", side, side), 1)
    yield (
        "jpeg-progressive",
        encode(picture(16, 16), format="JPEG", progressive=True).replace(size, struct.pack(">HH", side, side), 1),
    )
    canvas = struct.pack("<I", side - 1)[:3] * 2
    yield "webp", b"RIFF" + struct.pack("<I", 200) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas + bytes(170)
    frame = encode(picture(16, 16), format="WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas + frame
    yield "webp-small-frame", b"RIFF" + struct.pack("<I", len(body)) + body
