"""Give memory back to the system after a large picture."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

__all__ = ["LARGE_PIXELS", "give_back"]

# Pillow keeps a picture in blocks of up to 16 MB. glibc raises the size from which it hands freed blocks straight back
# to the system to that of the largest it has seen freed, so once a server has read one large picture, the blocks of
# all later ones stay in its heap: 600 MB were seen held for minutes. Smaller pictures cost no more than they did.
LARGE_PIXELS: Final = 4_000_000


def give_back() -> None:
    """Hand free heap memory to the system; about a millisecond, and nothing where the C library cannot."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
