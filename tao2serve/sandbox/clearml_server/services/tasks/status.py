"""The states of a task: which moves exist, and what a move changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...call import Call
from ...store import Doc, Tx
from ..projects import rules as projects
from .entity import KIND
from .errors import invalid_move, invalid_task_id, not_editable

MOVES: Mapping[str, frozenset[str]] = {
    "created": frozenset({"queued", "in_progress"}),
    "queued": frozenset({"created", "in_progress", "stopped"}),
    "in_progress": frozenset({"stopped", "failed", "created", "completed"}),
    "stopped": frozenset(
        {"closed", "created", "failed", "queued", "in_progress", "published", "publishing", "completed"}
    ),
    "closed": frozenset({"created", "failed", "published", "publishing", "stopped"}),
    "failed": frozenset({"created", "stopped", "published", "publishing", "queued"}),
    "publishing": frozenset({"published"}),
    "published": frozenset(),
    "completed": frozenset({"published", "in_progress", "created"}),
    "unknown": frozenset(),
}


def may_move(current: str, new: str) -> bool:
    """Say whether a task may go from one state to another without force."""
    return current == new or new in MOVES.get(current, frozenset())


def load(tx: Tx, identifier: str) -> Doc:
    """Return a task; 400/101 if there is none."""
    doc = tx.get(KIND, identifier)
    if doc is None:
        raise invalid_task_id(identifier)
    return doc


def move(call: Call, doc: Doc, new: str, *, force: bool | None = None, **fields: Any) -> Mapping[str, Any]:
    """Move a task, store it, and return the changed fields as an answer lists them.

    Raises 400/110 for a move that does not exist; `force` (default: the call's) allows any.
    """
    forced = call.flag("force") if force is None else force
    if not forced and not may_move(doc["status"], new):
        raise invalid_move(doc["status"], new)
    changed = {
        "status": new,
        "status_reason": call.text("status_reason"),
        "status_message": call.text("status_message"),
        "status_changed": call.now,
        **call.stamp(),
        **fields,
    }
    call.tx.put(KIND, {**doc, **changed})
    projects.touch(call, doc.get("project"))
    return changed


def require_created(doc: Doc, *, also_running: bool = False) -> None:
    """Refuse changes to a task that has left the editable states."""
    allowed = ("created", "in_progress") if also_running else ("created",)
    if doc["status"] not in allowed:
        raise not_editable(doc["status"])


def active_seconds(doc: Doc, now: str) -> int | None:
    """Return how long a started task has been active, in whole seconds."""
    started = doc.get("started")
    if not started:
        return None
    return int((datetime.fromisoformat(now) - datetime.fromisoformat(started)).total_seconds())
