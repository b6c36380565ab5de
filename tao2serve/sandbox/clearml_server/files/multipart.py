"""Multipart bodies as a stream: parts of any size pass through without being held in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
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


class _Reader:
    """Takes bytes in any cut and gives the pieces that are complete so far."""

    def __init__(self, boundary: bytes) -> None:
        self._first = b"--" + boundary
        self._mark = b"\r\n" + self._first
        self._buffer = b"\r\n"
        self._step: Callable[[], tuple[list[Piece], bool]] = self._preamble

    @property
    def complete(self) -> bool:
        """Say whether the last boundary was seen."""
        return self._step == self._epilogue

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Yield what the new bytes complete."""
        self._buffer += chunk
        more = True
        while more:
            pieces, more = self._step()
            yield from pieces

    def _preamble(self) -> tuple[list[Piece], bool]:
        _, found = self._up_to_mark()
        if found:
            self._step = self._boundary
        return [], found

    def _boundary(self) -> tuple[list[Piece], bool]:
        if len(self._buffer) < 2:
            return [], False
        if self._buffer.startswith(b"--"):
            self._step = self._epilogue
        elif self._buffer.startswith(b"\r\n"):
            self._buffer, self._step = self._buffer[2:], self._head
        else:
            raise MultipartError("a boundary is malformed")
        return [], True

    def _head(self) -> tuple[list[Piece], bool]:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(self._buffer) > _LONGEST_HEAD:
                raise MultipartError("the head of a part is too long")
            return [], False
        # The line break before a boundary may be the one that ended the head, when the part is empty.
        self._buffer, self._step = b"\r\n" + rest, self._empty_or_content
        return [PartStart(_field_name(head))], True

    def _empty_or_content(self) -> tuple[list[Piece], bool]:
        if len(self._buffer) < len(self._mark) and self._mark.startswith(self._buffer):
            return [], False
        if not self._buffer.startswith(self._mark):
            self._buffer = self._buffer[2:]
        self._step = self._content
        return [], True

    def _content(self) -> tuple[list[Piece], bool]:
        content, found = self._up_to_mark()
        pieces: list[Piece] = [PartBytes(content)] if content else []
        if found:
            pieces.append(PartEnd())
            self._step = self._boundary
        return pieces, found

    def _epilogue(self) -> tuple[list[Piece], bool]:
        self._buffer = b""
        return [], False

    def _up_to_mark(self) -> tuple[bytes, bool]:
        """Take the bytes before the boundary, or as many as cannot be part of one."""
        before, found, rest = self._buffer.partition(self._mark)
        if found:
            self._buffer = rest
            return before, True
        keep = len(self._mark) - 1
        taken, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        return taken, False


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Piece]:
    """Yield the pieces of a multipart body; raise MultipartError when it breaks off."""
    reader = _Reader(boundary)
    async for chunk in body:
        for piece in reader.feed(chunk):
            yield piece
    if not reader.complete:
        raise MultipartError("the body ends before its last boundary")
