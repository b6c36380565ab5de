"""What ClearML says about tasks."""

from __future__ import annotations

from ...call import COMPANY
from ...errors import ApiError


def invalid_task_id(identifier: str) -> ApiError:
    """No such task."""
    return ApiError(400, 101, "Invalid task id", values={"id": identifier, "company": COMPANY})


def invalid_task_ids(identifier: str) -> ApiError:
    """No such task, in the words of `get_by_id`."""
    return ApiError(400, 101, "Invalid task id", values={"ids": f"({identifier})"})


def invalid_move(current: str, new: str) -> ApiError:
    """The state machine has no such move."""
    values = {"current_status": current, "new_status": new}
    return ApiError(400, 110, "Invalid task status", detail="Invalid status change", values=values)


def published_stays(identifier: str) -> ApiError:
    """Resetting a published task needs force."""
    return ApiError(400, 110, "Invalid task status", values={"task_id": identifier, "status": "published"})


def not_editable(status: str) -> ApiError:
    """The task has left the state in which it may be edited."""
    return ApiError(400, 110, "Invalid task status", values={"expected": "created", "status": status})


def not_deletable(identifier: str, status: str) -> ApiError:
    """Deleting a task that ran needs force."""
    values = {"task": identifier, "expected": "created", "current": status}
    detail = "due to status, use force=True"
    return ApiError(400, 123, "Task cannot be deleted", detail=detail, values=values)


def has_published(identifier: str, what: str, **found: object) -> ApiError:
    """Deleting or resetting a task on which published things depend needs force."""
    return ApiError(
        400, 123, "Task cannot be deleted", detail=f"has {what}, use force=True", values={"task": identifier, **found}
    )


def already_queued(identifier: str) -> ApiError:
    """The task waits in a queue."""
    sentence = "Failed adding task to queue since task is already queued"
    return ApiError(400, 706, sentence, values={"task": identifier})
