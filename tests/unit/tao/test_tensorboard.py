"""TensorBoard's event files, read without TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path

from tao2serve.tao.tensorboard import read_scalars


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def scalar(tag: str, value: float) -> bytes:
    return field(1, field(1, tag.encode()) + varint(2 << 3 | 5) + struct.pack("<f", value))


def event(step: int, *values: bytes) -> bytes:
    head = varint(1 << 3 | 1) + struct.pack("<d", 1700000000.0) + varint(2 << 3) + varint(step)
    return head + field(5, b"".join(values))


def record(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + b"\0\0\0\0" + content + b"\0\0\0\0"


def test_scalars_are_read_and_others_passed_over(tmp_path: Path) -> None:
    """Curves by tag and step; histograms beside them are none, and of a step written twice the later counts."""
    histogram = field(1, field(1, b"histogram/weight/conv1") + field(5, b"\x09\0\0\0\0\0\0\0\0"))
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(
        record(varint(1 << 3 | 1) + struct.pack("<d", 1.0) + field(3, b"brain.Event:2"))
        + record(event(0, scalar("total_cost", 1.5), histogram, scalar("learning_rate", 0.25)))
        + record(event(300, scalar("total_cost", 0.5), scalar("broken", float("nan"))))
        + record(event(300, scalar("total_cost", 0.75)))
    )
    assert read_scalars([path]) == {"total_cost": {0: 1.5, 300: 0.75}, "learning_rate": {0: 0.25}}


def test_a_file_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    """The last record of a run that was killed is left out; a file that is none gives nothing."""
    path = tmp_path / "events.out.tfevents.1.host"
    whole = record(event(1, scalar("total_cost", 1.0)))
    path.write_bytes(whole + record(event(2, scalar("total_cost", 2.0)))[:-7])
    (tmp_path / "events.out.tfevents.2.host").write_bytes(b"no events at all, but some text of a kind")
    assert read_scalars(sorted(tmp_path.iterdir())) == {"total_cost": {1: 1.0}}
