"""How short a name ClearML takes: the spec, its patch and an adoption are held to one rule."""

from __future__ import annotations

from typing import Final

__all__ = ["SHORTEST_NAME", "too_short_in"]

SHORTEST_NAME: Final = 3  # characters of a task, and of each part of a project's path: a real server refuses less


def too_short_in(project: str) -> str | None:
    """Return the first part of a project's path that ClearML would refuse, None if it takes them all."""
    return next((part for part in project.split("/") if len(part.strip()) < SHORTEST_NAME), None)
