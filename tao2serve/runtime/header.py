"""What an image says of itself: format, size and orientation, read without decoding a pixel.

Pillow parses metadata when it opens a file: it inflates colour profiles and texts, and follows every EXIF pointer,
each of which a few bytes can make arbitrarily large. So the parts are walked here, a bounded number of them, and the
decoder is handed what pixels are made of and nothing else.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["DamagedImageError", "Format", "Header", "ImageError", "read_header"]

Format: TypeAlias = Literal["JPEG", "PNG", "BMP", "WEBP"]

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# A 32 MB PNG in libpng's blocks of 8 KB has 4,096 chunks; an animated WebP has one per frame.
MAX_PARTS: Final = 16_384
# Four quantization and eight Huffman tables are all that a JPEG can hold at a time.
MAX_TABLES: Final = 64
ORIENTATION: Final = 0x0112

# JPEG markers. Those of a frame carry the size; the tables are needed to decode.
START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE: Final = frozenset((0xC2, 0xCA))
# Baseline, extended and progressive, the latter two with arithmetic coding as well. Nobody writes the others; and
# decoding a lossless one at reduced size overwrites memory in Pillow up to 12 (24 kB in a request ended a process).
DECODED_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
TABLES: Final = frozenset((0xC4, 0xCC, 0xDB, 0xDD))
ALONE: Final = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
START_OF_SCAN, END_OF_IMAGE, APP1 = 0xDA, 0xD9, 0xE1
# These say which colours the numbers are; one of each counts.
COLOURS: Final = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
_MARKER: Final = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_MARKER_IN_SCANS: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


class ImageError(ValueError):
    """The bytes are no image we take; the text is one sentence for the caller."""


class DamagedImageError(ImageError):
    """A decoder had begun with the pixels when it found that they are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What was read before decoding.

    `width` and `height` are those of the stored pixels, `orientation` is EXIF's 1 to 8, `stream` is the image without
    metadata, `scans` how often a JPEG goes over all its pixels, and `compressed_rows` marks a run-length BMP.
    """

    format: Format
    width: int
    height: int
    stream: bytes
    orientation: int = 1
    scans: int = 1
    compressed_rows: bool = False


def read_header(body: bytes) -> Header:
    """Return the header of a JPEG, PNG, BMP or WebP image; raises ImageError for anything else.

    Costs at most a look at each byte, whatever size the header claims.
    """
    try:
        if body.startswith(b"\xff\xd8\xff"):
            return _jpeg(body)
        if body.startswith(PNG_SIGNATURE):
            return _png(body)
        if body.startswith(b"BM"):
            return _bmp(body)
        if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
            return _webp(body)
    except struct.error as error:
        raise ImageError("the image cannot be decoded: it ends within its header") from error
    raise ImageError("the body is no image; JPEG, PNG, BMP and WebP are taken")


def _jpeg(body: bytes) -> Header:
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    frame: bytes | None = None
    progressive = False
    orientation: int | None = None
    colours: set[bytes] = set()
    for marker, start, end in _segments(body):
        content = body[start + 4 : end]
        if marker in START_OF_FRAME:
            if frame is not None:
                raise ImageError("the image cannot be decoded: the JPEG has two frames")
            if marker not in DECODED_FRAMES:
                raise ImageError("the image cannot be decoded: the JPEG is lossless or hierarchical")
            frame, progressive = content, marker in PROGRESSIVE
        elif marker == APP1 and content.startswith(b"Exif\0\0"):
            orientation = orientation or _orientation(content[6:])
            continue
        elif content[:5] == COLOURS.get(marker) and content[:5] not in colours:
            colours.add(content[:5])
        elif marker not in TABLES:
            continue
        kept.append(body[start:end])
        if len(kept) > MAX_TABLES:
            raise ImageError(f"the image cannot be decoded: the JPEG has more than {MAX_TABLES} tables")
    if frame is None:
        raise ImageError("the image cannot be decoded: the JPEG does not say its size")
    height, width, components = struct.unpack_from(">HHB", frame, 1)
    kept.append(memoryview(body)[end:])
    # A scan of all components is the only one of a JPEG that is not progressive: libjpeg refuses another.
    single = not progressive and body[end + 4 : end + 5] == bytes((components,))
    return Header(
        format="JPEG",
        width=width,
        height=height,
        stream=b"".join(kept),
        orientation=orientation or 1,
        scans=1 if single else _scans(body, end),
    )


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of a JPEG's segments before its first scan, then that scan as (marker, at, at)."""
    position = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(body, position)
        if found is None:
            raise ImageError("the image cannot be decoded: the JPEG ends within its header")
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            raise ImageError("the image cannot be decoded: the JPEG has no pixels")
        if marker == START_OF_SCAN:
            yield marker, found.start(), found.start()
            return
        if marker not in ALONE:
            position += max(struct.unpack_from(">H", body, position)[0], 2)
            yield marker, found.start(), position
    raise ImageError(f"the image cannot be decoded: the JPEG has more than {MAX_PARTS:,} segments")


def _scans(body: bytes, start: int) -> int:
    """Count the scans of a JPEG from its first one on."""
    # In the pixels themselves 0xFF is always followed by 0x00 or a restart marker, so this never counts too few.
    most = body.count(b"\xff\xda", start)
    if most <= 16:
        return most
    # There may be other pictures or a video behind the end of this one, so follow it marker by marker.
    scans, position = 0, start
    for _ in range(MAX_PARTS):
        found = _MARKER_IN_SCANS.search(body, position)
        if found is None or found[1][0] == END_OF_IMAGE:
            return scans
        marker, position = found[1][0], found.end()
        scans += marker == START_OF_SCAN
        if marker not in ALONE and position + 2 <= len(body):
            position += max(struct.unpack_from(">H", body, position)[0], 2)
    raise ImageError(f"the image cannot be decoded: the JPEG has more than {MAX_PARTS:,} segments")


def _png(body: bytes) -> Header:
    length, kind, width, height = struct.unpack_from(">I4sII", body, len(PNG_SIGNATURE))
    if kind != b"IHDR" or length != 13:
        raise ImageError("the image cannot be decoded: the PNG does not begin with its header")
    whole = memoryview(body)
    kept = [whole[: len(PNG_SIGNATURE) + 25]]
    orientation, position = None, len(PNG_SIGNATURE) + 25
    for _ in range(MAX_PARTS):
        if position + 8 > len(body):
            break  # truncated; whether pixels are missing is for the decoder to say
        length, kind = struct.unpack_from(">I4s", body, position)
        end = position + length + 12
        if kind in (b"PLTE", b"IDAT", b"IEND"):
            kept.append(whole[position:end])
        elif kind == b"eXIf" and orientation is None:
            orientation = _orientation(body[position + 8 : end - 4])
        position = end
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"the image cannot be decoded: the PNG has more than {MAX_PARTS:,} chunks")
    return Header(format="PNG", width=width, height=height, stream=b"".join(kept), orientation=orientation or 1)


def _bmp(body: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", body, 14)
    compression = 0
    if header_size == 12:
        width, height = struct.unpack_from("<HH", body, 18)
    else:
        width, height = struct.unpack_from("<ii", body, 18)
        (compression,) = struct.unpack_from("<I", body, 30)
    # A negative height says that the rows run from top to bottom. 1 and 2 are run-length encoding.
    return Header(
        format="BMP", width=width, height=abs(height), stream=body, compressed_rows=compression in (1, 2)
    )  # fmt: skip


def _webp(body: bytes) -> Header:
    size: tuple[int, int] | None = None
    orientation, position = None, 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(body):
            break
        kind, length = struct.unpack_from("<4sI", body, position)
        start = position + 8
        if size is None:
            size = _webp_size(body, kind, start)
        if kind == b"EXIF" and orientation is None:
            orientation = _orientation(body[start : start + length].removeprefix(b"Exif\0\0"))
        position = start + length + length % 2
    else:
        raise ImageError(f"the image cannot be decoded: the WebP has more than {MAX_PARTS:,} chunks")
    if size is None:
        raise ImageError("the image cannot be decoded: the WebP ends within its header")
    return Header(format="WEBP", width=size[0], height=size[1], stream=body, orientation=orientation or 1)


def _webp_size(body: bytes, kind: bytes, start: int) -> tuple[int, int]:
    """Return the size that the first chunk gives: lossy, lossless, or the canvas of the extended format."""
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", body, start + 4)
        return (low_width | high_width << 16) + 1, (low_height | high_height << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, start + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, start + 6)
        return width & 0x3FFF, height & 0x3FFF
    raise ImageError("the image cannot be decoded: the WebP does not begin with pixels or their size")


def _orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF, 1 to 8; 1 (upright) where it has none that makes sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, entry)
            if tag == ORIENTATION:
                wide = kind == 4  # a LONG, against the standard, but read by Pillow and others
                (value,) = struct.unpack_from(order + ("I" if wide else "H"), exif, entry + 8)
                return value if kind in (3, 4) and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
