"""Taking events in: each one is checked, the good ones are kept, the others are counted by fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...call import Call
from ...clock import epoch_ms, event_time
from ...store import Doc
from ..models.entity import KIND as MODEL
from ..tasks.entity import KIND as TASK
from ..tasks.status import active_seconds
from .errors import empty_batch, none_added
from .metrics import SCALAR, fold_events

PLOT = "plot"
LOG = "log"
IMAGE = "training_debug_image"
TYPES = (SCALAR, "training_stats_vector", IMAGE, PLOT, LOG)


def add(call: Call) -> Mapping[str, Any]:
    """Add one event."""
    return _add(call, [dict(call.params)])


def add_batch(call: Call) -> Mapping[str, Any]:
    """Add events, one JSON object a line."""
    if not call.items:
        raise empty_batch()
    return _add(call, call.items)


def _add(call: Call, raw: Sequence[Any]) -> Mapping[str, Any]:
    problems: Counter[str] = Counter()
    accepted: dict[tuple[str, str], list[Doc]] = {}
    owners: dict[tuple[str, str], Doc] = {}
    for item in raw:
        event = dict(item) if isinstance(item, dict) else {}
        owner = (MODEL if event.get("model_event") else TASK, str(event.get("task") or ""))
        problem = _problem(call, event, owner, owners)
        if problem:
            problems[problem] += 1
        else:
            accepted.setdefault(owner, []).append(_normal(call, event))
    if not accepted:
        raise none_added(problems)
    for owner, events in accepted.items():
        call.tx.add_events(events)
        _note(call, owner[0], owners[owner], events)
    added = sum(len(events) for events in accepted.values())
    return {"added": added, "errors": problems.total(), "errors_info": dict(problems)}


def _problem(call: Call, event: Doc, owner: tuple[str, str], owners: dict[tuple[str, str], Doc]) -> str:
    if "type" not in event:
        return "Event must have a 'type' field"
    if event["type"] not in TYPES:
        return f"Invalid event type {event['type']}"
    if not owner[1]:
        return "Event must have a 'task' field"
    if owner not in owners:
        doc = call.tx.get(*owner)
        if doc is None:
            return f"Invalid {owner[0]} id {owner[1]}"
        owners[owner] = doc
    if event["type"] == SCALAR and not isinstance(event.get("value"), int | float):
        return "Scalar event must have a 'value'"
    return ""


def _normal(call: Call, event: Doc) -> Doc:
    now = epoch_ms(call.now)
    normal = {"model_event": False, "worker": "<unknown>", **event, "@timestamp": event_time(now)}
    normal.pop("allow_locked", None)
    timestamp = event.get("timestamp")
    normal["timestamp"] = int(timestamp) if isinstance(timestamp, int | float) else now
    if event["type"] == LOG:
        normal = {"metric": "", "variant": "", **normal}
    if event["type"] == PLOT and isinstance(event.get("plot_str"), str):
        normal["plot_len"] = len(event["plot_str"])
    return normal


def _note(call: Call, kind: str, doc: Doc, events: list[Doc]) -> None:
    changed = fold_events(doc, events)
    if kind == TASK:
        changed["last_update"] = call.now
        changed["active_duration"] = active_seconds(doc, call.now)
    call.tx.put(kind, changed)


def delete_for_task(call: Call) -> Mapping[str, Any]:
    """Remove all events of a task."""
    return {"deleted": call.tx.delete_events(call.text("task"))}
