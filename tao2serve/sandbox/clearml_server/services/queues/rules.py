"""Queues in other rooms: finding one, adding and removing tasks."""

from __future__ import annotations

from typing import Any

from ...call import COMPANY, Call
from ...clock import new_id
from ...entity import Entity, leaves, maps
from ...errors import too_short
from ...store import Doc
from .errors import duplicate, invalid_queue_id

KIND = "queue"
DEFAULT = "default"
_SHORTEST = 3

QUEUE = Entity(
    kind=KIND,
    plural="queues",
    fields={
        **leaves("id", "name", "display_name", "company", "user", "created", "tags", "system_tags"),
        **leaves("last_update"),
        "entries": leaves("task", "added"),
        **maps("metadata"),
    },
    lists=("id", "tags", "system_tags"),
    times=("last_update",),
    ranges=("created",),
    references={"company": "company"},
)


def create(call: Call, name: str, **fields: Any) -> Doc:
    """Create a queue; names are unique and have three characters or more."""
    if len(name) < _SHORTEST:
        raise too_short("name")
    if call.tx.by_name(KIND, name):
        raise duplicate()
    doc = {
        "id": new_id(),
        "name": name,
        "company": COMPANY,
        "created": call.now,
        "tags": [],
        "system_tags": [],
        "entries": [],
        "last_update": call.now,
        "metadata": {},
        **fields,
    }
    call.tx.put(KIND, doc)
    return doc


def default(call: Call) -> Doc:
    """Return the default queue, which always exists."""
    return call.tx.by_name(KIND, DEFAULT) or create(call, DEFAULT, system_tags=["default"])


def load(call: Call, identifier: str) -> Doc:
    """Return a queue; 400/701 if there is none."""
    doc = call.tx.get(KIND, identifier)
    if doc is None:
        raise invalid_queue_id(identifier)
    return doc


def find(call: Call, identifier: str | None, name: str | None) -> Doc:
    """Return the queue with this id, or this name (created if missing), or the default one."""
    if identifier:
        return load(call, identifier)
    if name:
        return call.tx.by_name(KIND, name) or create(call, name)
    return default(call)


def append(call: Call, queue: Doc, task: str) -> None:
    """Put a task at the end of a queue."""
    entries = [*queue["entries"], {"task": task, "added": call.now}]
    call.tx.put(KIND, {**queue, "entries": entries, "last_update": call.now})


def discard(call: Call, identifier: str | None, task: str) -> bool:
    """Take a task out of a queue; False if it was not in it."""
    queue = call.tx.get(KIND, identifier) if identifier else None
    if queue is None:
        return False
    entries = [entry for entry in queue["entries"] if entry["task"] != task]
    if len(entries) == len(queue["entries"]):
        return False
    call.tx.put(KIND, {**queue, "entries": entries, "last_update": call.now})
    return True
