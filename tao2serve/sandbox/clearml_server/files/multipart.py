"""Multipart bodies as a stream: parts of any size pass through without being held in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

_NAME = re.compile(r'\bname="((?:[^"\\]|\\.)*)"')
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_LONGEST_HEAD = 64 * 1024


class MultipartError(ValueError):
    """The body is not the multipart it says it is."""


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part begins; `name` is its field name."""

    name: str


@dataclass(frozen=True, slots=True)
class PartBytes:
    """The next bytes of the part."""

    content: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Piece = PartStart | PartBytes | PartEnd


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type header names."""
    match = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/form-data") or match is None:
        raise MultipartError("the body is not multipart/form-data")
    return match[1].encode()


def _field_name(head: bytes) -> str:
    for line in head.decode("utf-8", errors="replace").split("\r\n"):
        if line.lower().startswith("content-disposition:"):
            match = _NAME.search(line)
            if match:
                # urllib3 writes a quote in a name as %22 and doubles backslashes.
                return re.sub(r"\\(.)", r"\1", match[1]).replace("%22", '"')
    raise MultipartError("a part has no field name")


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Piece]:
    """Yield the pieces of a multipart body; raise MultipartError when it breaks off."""
    mark = b"\r\n--" + boundary
    buffer = b"\r\n"
    state = "preamble"
    async for chunk in body:
        buffer += chunk
        while True:
            if state == "head":
                head, found, rest = buffer.partition(b"\r\n\r\n")
                if not found:
                    if len(buffer) > _LONGEST_HEAD:
                        raise MultipartError("the head of a part is too long")
                    break
                yield PartStart(_field_name(head))
                buffer, state = b"\r\n" + rest if rest.startswith(b"--" + boundary) else rest, "content"
            elif state == "boundary":
                if len(buffer) < 2:
                    break
                if buffer.startswith(b"--"):
                    state = "end"
                elif buffer.startswith(b"\r\n"):
                    buffer, state = buffer[2:], "head"
                else:
                    raise MultipartError("a boundary is malformed")
            elif state == "end":
                buffer = b""
                break
            else:
                content, found, rest = buffer.partition(mark)
                if not found:
                    keep = len(mark) - 1
                    if state == "content" and len(buffer) > keep:
                        yield PartBytes(buffer[:-keep])
                    buffer = buffer[-keep:]
                    break
                if state == "content":
                    if content:
                        yield PartBytes(content)
                    yield PartEnd()
                buffer, state = rest, "boundary"
    if state != "end":
        raise MultipartError("the body ends before its last boundary")
