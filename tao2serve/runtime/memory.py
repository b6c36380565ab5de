"""What glibc does with freed memory: kept where it is needed again at once, given back after something large."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

__all__ = ["LARGE_PIXELS", "give_back", "keep_freed"]

# A picture of more pixels is worth the millisecond that giving back takes.
LARGE_PIXELS: Final = 4_000_000
_KEPT_BYTES: Final = 31 << 20


def keep_freed() -> None:
    """Let freed blocks of up to 31 MB stay in this process's heap.

    glibc hands blocks above a threshold back to the system when they are freed, and whoever needs such a block next
    faults it in page by page: 6,600 faults, half of the time of a call with a tensor of 6 MB. It raises the threshold
    to the largest block it has seen freed, at most 32 MB (mallopt(3), M_MMAP_THRESHOLD), so one block does it; as it
    is never touched, it takes no memory.
    """
    bytes(_KEPT_BYTES)  # from calloc; a bytearray would be written to


def give_back() -> None:
    """Hand what is free in this process's heap back to the system; nothing where the C library cannot.

    Pillow keeps a picture in blocks of up to 16 MB, which stay in the heap once they are freed: 600 MB were seen
    held for minutes after a few large pictures.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
