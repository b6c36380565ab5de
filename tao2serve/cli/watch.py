"""`tao2serve watch`: a pipeline for every model that gets a tag."""

from __future__ import annotations


def watch() -> None:
    """To come."""
