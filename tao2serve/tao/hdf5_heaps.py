"""Look for damage in an HDF5 file that makes the HDF5 library itself loop for ever or fill the memory.

libhdf5 walks a global heap (where it keeps long strings) by each object's own size, and never ends at an
object of size 0 (seen with HDF5 2.0.0 on a file with bytes inserted into the heap). It also allocates as much
as a string's reference says, up to 4 GiB, before it looks at the object. Nothing in Python can stop it then,
so the same walk is done here first. Layout: HDF5 file format specification, III.E, IV.A.2.d.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from tao2serve.errors import InputError

__all__ = ["check_heaps"]

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # with its version and reserved bytes: no chance match in the weights
_HEADER = 16  # of the heap: signature, size; of an object: index, references, reserved, size
# What h5py 2 and 3 write before a text attribute's reference: 16 bytes for each, characters of one byte, a scalar.
_TEXT_ATTRIBUTE = bytes.fromhex("10000000 10000000 01000000 00000800 00000000 01000000 00000000")
_REFERENCE = struct.Struct("<IQI")  # length, the heap's place, the object's index


def check_heaps(path: Path) -> None:
    """Raise InputError if a global heap or a text that lies in one is damaged. The file must not be empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _size_of_lengths(content) != 8:
            raise InputError(str(path), "is an HDF5 file of an unusual layout, or a damaged one")
        heaps: dict[int, dict[int, int]] = {}
        for start in _places(content, _SIGNATURE):
            sizes = _object_sizes(content, start)
            if sizes is None:
                raise _damaged(path, f"the heap at byte {start} is inconsistent")
            heaps[start] = sizes
        for start in _places(content, _TEXT_ATTRIBUTE):
            begin = start + len(_TEXT_ATTRIBUTE)
            reference = content[begin : begin + _REFERENCE.size]
            if len(reference) < _REFERENCE.size:
                raise _damaged(path, f"it ends within the attribute at byte {start}")
            length, heap, index = _REFERENCE.unpack(reference)
            if length > heaps.get(heap, {}).get(index, 0):
                raise _damaged(path, f"the text at byte {start} is longer than its place")


def _damaged(path: Path, evidence: str) -> InputError:
    return InputError(
        str(path),
        "is a damaged HDF5 file",
        evidence=evidence,
        hint="copy it again from the training machine and compare the sizes",
    )


def _places(content: mmap.mmap, wanted: bytes) -> Iterator[int]:
    start = content.find(wanted)
    while start >= 0:
        yield start
        start = content.find(wanted, start + len(wanted))


def _size_of_lengths(content: mmap.mmap) -> int:
    """Return how many bytes the file gives to a length; h5py always writes 8."""
    place = 14 if content[8] < 2 else 10  # superblock versions 0 and 1, or 2 and 3
    return content[place] if len(content) > place else 0


def _object_sizes(content: mmap.mmap, start: int) -> dict[int, int] | None:
    """Return the size of each object in a heap by its index, None if the heap cannot be walked."""
    if start + _HEADER > len(content):
        return None
    (size,) = struct.unpack_from("<Q", content, start + 8)
    place, end = start + _HEADER, start + size
    if end > len(content):
        return None
    sizes: dict[int, int] = {}
    while end - place >= _HEADER:
        index, length = struct.unpack_from("<H6xQ", content, place)
        # index 0 is the free space at the end, whose length counts its own header
        step = length if index == 0 else _HEADER + -(-length // 8) * 8
        if not _HEADER <= step <= end - place:
            return None
        sizes[index] = length
        place += step
    return sizes
