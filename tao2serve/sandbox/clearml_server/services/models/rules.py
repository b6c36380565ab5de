"""Models in other rooms: loading, and publishing what a task made."""

from __future__ import annotations

from ...call import Call
from ...store import Doc, Tx
from .entity import KIND
from .errors import invalid_model_id

__all__ = ["KIND", "load", "publish_output"]


def load(tx: Tx, identifier: str) -> Doc:
    """Return a model; 400/201 if there is none."""
    doc = tx.get(KIND, identifier)
    if doc is None:
        raise invalid_model_id(identifier)
    return doc


def publish_output(call: Call, identifier: str) -> None:
    """Publish a task's output model if it is there and still a draft."""
    doc = call.tx.get(KIND, identifier)
    if doc and not doc.get("ready"):
        call.tx.put(KIND, {**doc, "ready": True, **call.stamp()})
