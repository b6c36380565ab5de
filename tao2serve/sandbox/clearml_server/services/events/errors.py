"""What ClearML says about events."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import ApiError


def none_added(problems: Mapping[str, int]) -> ApiError:
    """No event of the call was accepted."""
    return ApiError(400, 131, "Events not added", values=problems)


def empty_batch() -> ApiError:
    """A batch without events."""
    return ApiError(400, 17, "Batch request contains no items")
