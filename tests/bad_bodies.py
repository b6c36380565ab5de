"""Request bodies that are no picture, or hardly one: what clients send by mistake, and what they send on purpose."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

JPEG, JSON, BYTES = "image/jpeg", "application/json", "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request: `statuses` are those that are right for it."""

    name: str
    content: bytes
    media_type: str = JPEG
    statuses: tuple[int, ...] = (422,)
    encoding: str = ""


def refused(picture: bytes, *, url: str) -> tuple[Body, ...]:
    """Bodies that must be refused; `picture` is a sound JPEG, `url` an address that must never be asked."""
    encoded = base64.b64encode(picture).decode()
    wide = b"\xff\xd8" + _segment(0xC0, bytes.fromhex("08ea60ea60") + b"\3\1\x22\0\2\x11\1\3\x11\1")
    rgb_header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bmp_header = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6)
    webp_header = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\x3f\x00" * 2
    bodies = {
        "empty": b"",
        "text": b"hello",
        "html": b"<!doctype html><title>x</title>" * 50,
        "zeros": bytes(100_000),
        "truncated": picture[: len(picture) // 3],
        "header only": picture[:24],
        "bomb png": b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", rgb_header) + _chunk(b"IDAT", zlib.compress(bytes(10_000))),
        "bomb jpeg": wide + b"\xff\xd9",
        "lossless jpeg": undecoded_jpeg(0xC3),
        "bomb bmp": b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + bmp_header,
        "bomb webp": b"RIFF" + struct.pack("<I", 22) + webp_header,
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='" + url.encode() + b"'/></svg>",
        "gif": _picture("GIF"),
        "tiff": _picture("TIFF"),
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "pickle": pickle.dumps({"image": [1, 2, 3]}),
        "multipart": b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + picture + b"\r\n--x--\r\n",
    }
    documents: dict[str, Any] = {
        "empty object": {},
        "no image": {"picture": encoded},
        "null": {"image": None},
        "number": {"image": 7},
        "bytes as list": {"image": list(picture[:50])},
        "wrong base64": {"image": "!!!"},
        "base64 with a hole": {"image": encoded[:100] + "*" + encoded[101:]},
        "base64 not ASCII": {"image": "ümläut" * 20},
        "base64 of text": {"image": base64.b64encode(b"hello").decode()},
        "empty list": {"images": []},
        "list of nothing": {"images": [None]},
        "too many": {"images": [encoded[:400]] * 17},
        "one bad of two": {"images": [encoded, "!!!"]},
        "http url": {"image": url},
        "shouted url": {"image": url.upper().replace("HTTP", "HTTP", 1)},
        "url with spaces": {"image": "  " + url},
        "url in a list": {"images": [url]},
        "file url": {"image": "file:///etc/passwd"},
        "ftp url": {"image": url.replace("http", "ftp", 1)},
        "both": {"image": encoded, "images": [encoded]},
        "data url of a picture": {"image": "data:image/jpeg;base64," + encoded},
        "data url": {"image": "data:text/plain," + url},
        "nested": {"image": {"url": url}},
    }
    broken = {
        "broken json": b"{",
        "json list": b"[1, 2]",
        "json text": b'"x"',
        "json null": b"null",
        "not utf-8": b'{"image": "\xff"}',
        "deep json": b'{"image": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    }
    clients_fault = tuple(range(400, 500))  # clearml-serving's own words for what never reaches us
    return (
        *(Body(name=name, content=content) for name, content in bodies.items()),
        *(Body(name=name, content=json.dumps(each).encode(), media_type=JSON) for name, each in documents.items()),
        *(Body(name=name, content=each, media_type=JSON, statuses=clients_fault) for name, each in broken.items()),
        Body(name="gzip of text", content=gzip.compress(b"hello"), encoding="gzip"),
        Body(name="broken gzip", content=b"\x1f\x8b\x08\0broken", statuses=clients_fault, encoding="gzip"),
    )


def mutated(picture: bytes, *, seed: int) -> Iterator[Body]:
    """Damaged copies of a sound JPEG, without end; one that still decodes may be answered."""
    chance = random.Random(seed)
    while True:
        content = bytearray(picture)
        kind = chance.randrange(4)
        for _ in range(chance.choice((1, 3, 20, 200))):
            place = chance.randrange(len(content) if kind else min(len(content), 700))
            if kind < 2:
                content[place] = chance.randrange(256)
            elif kind == 2:
                del content[place : place + chance.randrange(1, 30)]
            else:
                content[place:place] = chance.randbytes(chance.randrange(1, 30))
        yield Body(name="mutated", content=bytes(content), statuses=(200, 422))


def undecoded_jpeg(marker: int) -> bytes:
    """A JPEG of 256x256 pixels whose frame is `marker`; with 0xC3, lossless, it has all its pixels."""
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    frame = _segment(marker, struct.pack(">BHHB", 8, 256, 256, 3) + components)
    table = _segment(0xC4, bytes([0, 1, *[0] * 15, 0]))
    scan = _segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 1, 0, 0]))
    return b"\xff\xd8" + frame + table + scan + bytes(256 * 256 * 3 // 8) + b"\xff\xd9"


def _picture(format_name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, format=format_name)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
