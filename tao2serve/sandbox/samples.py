"""The sample detector that comes with the package: two finished TAO runs, and pictures with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["LOCAL_PROJECT", "PROJECT", "SAMPLE", "pictures"]

SAMPLE: Final = Path(__file__).with_name("sample")
PROJECT: Final = "street-detector"
LOCAL_PROJECT: Final = "street-detector-local"  # holds a run that was never uploaded


def pictures() -> tuple[Path, ...]:
    """Return the sample pictures, in the order of their names."""
    return tuple(sorted((SAMPLE / "images").glob("*.jpg")))
