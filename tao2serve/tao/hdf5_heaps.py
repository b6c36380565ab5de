"""Look for damage in an HDF5 file that makes the HDF5 library itself loop for ever.

libhdf5 walks a global heap (where it keeps long strings) by each object's own size, and never ends at an
object of size 0 (seen with HDF5 2.0.0 on a file with bytes inserted into the heap). Nothing in Python
can stop it then, so the same walk is done here first. Layout: HDF5 file format specification, III.E.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from tao2serve.errors import InputError

__all__ = ["check_heaps"]

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # with its version and reserved bytes: no chance match in the weights
_HEADER = 16  # of the heap: signature, size; of an object: index, references, reserved, size


def check_heaps(path: Path) -> None:
    """Raise InputError if a global heap in the file cannot be walked. The file must not be empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _size_of_lengths(content) != 8:
            raise InputError(str(path), "is an HDF5 file of an unusual layout, or a damaged one")
        start = content.find(_SIGNATURE)
        while start >= 0:
            if not _is_walkable(content, start):
                raise InputError(
                    str(path),
                    "is a damaged HDF5 file",
                    evidence=f"the heap at byte {start} is inconsistent",
                    hint="copy it again from the training machine and compare the sizes",
                )
            start = content.find(_SIGNATURE, start + len(_SIGNATURE))


def _size_of_lengths(content: mmap.mmap) -> int:
    """Return how many bytes the file gives to a length; h5py always writes 8."""
    place = 14 if content[8] < 2 else 10  # superblock versions 0 and 1, or 2 and 3
    return content[place] if len(content) > place else 0


def _is_walkable(content: mmap.mmap, start: int) -> bool:
    if start + _HEADER > len(content):
        return False
    (size,) = struct.unpack_from("<Q", content, start + 8)
    place, end = start + _HEADER, start + size
    if end > len(content):
        return False
    while end - place >= _HEADER:
        index, length = struct.unpack_from("<H6xQ", content, place)
        # index 0 is the free space at the end, whose length counts its own header
        step = length if index == 0 else _HEADER + -(-length // 8) * 8
        if not _HEADER <= step <= end - place:
            return False
        place += step
    return True
