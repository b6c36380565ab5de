"""What ClearML says about queues."""

from __future__ import annotations

from ...call import COMPANY
from ...errors import ApiError


def invalid_queue_id(identifier: str) -> ApiError:
    """No such queue; names are not ids."""
    return ApiError(400, 701, "Invalid queue id", values={"id": identifier, "company": COMPANY})


def not_empty(identifier: str) -> ApiError:
    """Deleting a queue with tasks in it needs force."""
    detail = "use force=true to delete"
    return ApiError(400, 702, "Queue is not empty", detail=detail, values={"id": identifier})


def not_queued(identifier: str, task: str) -> ApiError:
    """The task is not in that queue."""
    return ApiError(400, 703, "Invalid queue id or task not in queue", values={"task": task, "queue": identifier})


def already_queued(identifier: str) -> ApiError:
    """The task is in the queue."""
    return ApiError(400, 704, "Task already queued", values={"task": identifier})


def duplicate() -> ApiError:
    """The name is taken."""
    return ApiError(
        400,
        801,
        "Value combination already exists",
        detail="unique field already contains this value",
        values={"err": "Tried to save duplicate unique keys (E11000 Duplicate Key Error)"},
    )
