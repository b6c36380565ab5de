"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _golden_folder() -> Path | None:
    """Find the reference data: $GOLDEN, else a folder `shared/golden` beside the checkout or further up."""
    named = os.environ.get("GOLDEN")
    if named:
        return Path(named)
    for folder in REPOSITORY.parents:
        if (folder / "shared" / "golden").is_dir():
            return folder / "shared" / "golden"
    return None


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the reference data made by NVIDIA's own code."""
    folder = _golden_folder()
    if folder is None or not folder.is_dir():
        pytest.skip("reference data not found: set GOLDEN to its folder")
    return folder
