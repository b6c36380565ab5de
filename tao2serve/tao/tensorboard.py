"""The scalars in TensorBoard's event files, read without TensorFlow.

A file is a row of records (length, 4 bytes of checksum, content, 4 bytes of checksum); a record is a protobuf message
`Event`: `step` is field 2, `summary` field 5, whose `value`s (field 1) have `tag` (1) and `simple_value` (2). Pictures
and histograms are passed over. Checksums are not looked at: a record that is cut off ends the file.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["read_scalars"]

log = logging.getLogger(__name__)

LARGEST_RECORD: Final = 256 << 20
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def read_scalars(files: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Return each curve as step → value; of a step that was written twice, as by a resumed run, the later counts.

    Files that cannot be read are passed over, with a word in the log: what they hold is no one's only record.
    """
    curves: dict[str, dict[int, float]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                for record in _records(file):
                    step, values = _event(record)
                    for tag, value in values:
                        curves.setdefault(tag, {})[step] = value
        except (OSError, ValueError, struct.error) as error:
            log.warning("%s holds no more events that can be read: %s", path, error)
    return curves


def _records(file: BinaryIO) -> Iterator[bytes]:
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        if length > LARGEST_RECORD:
            raise ValueError(f"a record of {length:,} bytes")
        content = file.read(length + 4)
        if len(content) < length + 4:
            return  # the last record of a run that was killed
        yield content[:length]


def _event(record: bytes) -> tuple[int, list[tuple[str, float]]]:
    step, found = 0, []
    for number, kind, value in _fields(record):
        if number == 2 and kind == VARINT and isinstance(value, int):
            step = value
        elif number == 5 and kind == BYTES and isinstance(value, bytes):
            for inner, inner_kind, content in _fields(value):
                if inner == 1 and inner_kind == BYTES and isinstance(content, bytes):
                    scalar = _scalar(content)
                    if scalar is not None:
                        found.append(scalar)
    return step, found


def _scalar(content: bytes) -> tuple[str, float] | None:
    tag, number = "", None
    for field, kind, value in _fields(content):
        if field == 1 and kind == BYTES and isinstance(value, bytes):
            tag = value.decode("utf-8", errors="replace")
        elif field == 2 and kind == FIXED32 and isinstance(value, bytes):
            (number,) = struct.unpack("<f", value)
    return (tag, number) if tag and number is not None and math.isfinite(number) else None


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and value of each field of a protobuf message; raises ValueError if it is none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"no protobuf message: wire type {kind}")
        if at + size > len(message):
            raise ValueError("no protobuf message: a field goes beyond its end")
        yield number, kind, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("no protobuf message: a number without an end")
