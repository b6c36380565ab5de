"""Where a task stands in a queue, and moving it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...call import Call
from ...validation import number_in
from .errors import not_queued
from .rules import KIND, load


def forward(call: Call) -> Mapping[str, Any]:
    """Move a task towards the head of its queue."""
    return _move(call, lambda place, _: place - (number_in(call.params, "count") or 1))


def backward(call: Call) -> Mapping[str, Any]:
    """Move a task towards the end of its queue."""
    return _move(call, lambda place, _: place + (number_in(call.params, "count") or 1))


def to_front(call: Call) -> Mapping[str, Any]:
    """Move a task to the head of its queue."""
    return _move(call, lambda *_: 0)


def to_back(call: Call) -> Mapping[str, Any]:
    """Move a task to the end of its queue."""
    return _move(call, lambda _, last: last)


def _move(call: Call, target: Callable[[int, int], int]) -> Mapping[str, Any]:
    """Place a task anew, and return where it stands: 0 is next."""
    doc = load(call, call.text("queue"))
    entries = list(doc["entries"])
    place = next((index for index, entry in enumerate(entries) if entry["task"] == call.text("task")), None)
    if place is None:
        raise not_queued(doc["id"], call.text("task"))
    last = len(entries) - 1
    position = min(max(target(place, last), 0), last)
    if position != place:
        entries.insert(position, entries.pop(place))
        call.tx.put(KIND, {**doc, "entries": entries, "last_update": call.now})
    return {"position": position}
