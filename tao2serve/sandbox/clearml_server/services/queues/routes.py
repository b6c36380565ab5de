"""The endpoints of `queues`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...projection import present
from ...store import Doc
from ...validation import Field, flag, listing, names, text
from ..reading import get_all, get_all_ex, texts
from ..workers import rules as workers
from . import order, rules
from .errors import already_queued, not_empty
from .rules import KIND, QUEUE, load

_EDITABLE = ("name", "tags", "system_tags")


def create(call: Call) -> Mapping[str, Any]:
    """Create a queue."""
    fields = {key: call.params[key] for key in _EDITABLE[1:] if call.params.get(key) is not None}
    return {"id": rules.create(call, call.text("name"), **fields)["id"]}


def get_by_id(call: Call) -> Mapping[str, Any]:
    """Return one queue."""
    return {"queue": present(load(call, call.text("queue")))}


def get_default(call: Call) -> Mapping[str, Any]:
    """Return the default queue."""
    queue = rules.default(call)
    return {"id": queue["id"], "name": queue["name"]}


def list_queues(call: Call) -> Mapping[str, Any]:
    """List queues."""
    rules.default(call)
    return {"queues": get_all(QUEUE, call)}


def list_queues_ex(call: Call) -> Mapping[str, Any]:
    """List queues with the names of the tasks in them, and the workers that serve them."""
    rules.default(call)
    answer = get_all_ex(QUEUE, call)
    for queue in answer["queues"]:
        queue["workers"] = [_worker(doc) for doc in workers.serving(call, queue["id"])]
        for entry in queue.get("entries", ()):
            task = call.tx.get("task", entry["task"])
            entry["task"] = {"id": entry["task"], **({"name": task["name"]} if task else {})}
    return answer


def _worker(doc: Doc) -> Mapping[str, Any]:
    shown = {"key": doc["key"], "name": doc["id"], "ip": doc["ip"]}
    return {**shown, "task": doc["task"]} if doc.get("task") else shown


def update(call: Call) -> Mapping[str, Any]:
    """Change a queue's name and tags."""
    doc = load(call, call.text("queue"))
    fields = {key: call.params[key] for key in _EDITABLE if call.params.get(key) is not None}
    if fields:
        call.tx.put(KIND, {**doc, **fields, "last_update": call.now})
    return {"fields": present(fields), "updated": int(bool(fields))}


def delete(call: Call) -> Mapping[str, Any]:
    """Delete a queue; one with tasks in it needs force."""
    doc = load(call, call.text("queue"))
    if doc["entries"] and not call.flag("force"):
        raise not_empty(doc["id"])
    call.tx.delete(KIND, doc["id"])
    return {"deleted": 1}


def add_task(call: Call) -> Mapping[str, Any]:
    """Put a task at the end of a queue, without touching the task."""
    doc = load(call, call.text("queue"))
    if any(entry["task"] == call.text("task") for entry in doc["entries"]):
        raise already_queued(call.text("task"))
    rules.append(call, doc, call.text("task"))
    return {"added": 1}


def remove_task(call: Call) -> Mapping[str, Any]:
    """Take a task out of a queue, without touching the task."""
    doc = load(call, call.text("queue"))
    return {"removed": int(rules.discard(call, doc["id"], call.text("task")))}


def get_next_task(call: Call) -> Mapping[str, Any]:
    """Take the first task out of a queue; {} if there is none."""
    doc = load(call, call.text("queue"))
    if not doc["entries"]:
        return {}
    first, *rest = doc["entries"]
    call.tx.put(KIND, {**doc, "entries": rest, "last_update": call.now})
    task = call.tx.get("task", first["task"]) if call.flag("get_task_info") else None
    if task is None:
        return {"entry": first}
    known = {name: task[name] for name in ("company", "user", "project") if task.get(name)}
    return {"entry": first, "task_info": {"id": task["id"], **known}}


def add_or_update_metadata(call: Call) -> Mapping[str, Any]:
    """Merge metadata items, or replace all with `replace_metadata`."""
    doc = load(call, call.text("queue"))
    kept = {} if call.flag("replace_metadata") else doc.get("metadata", {})
    items = {item["key"]: item for item in call.params["metadata"]}
    call.tx.put(KIND, {**doc, "metadata": {**kept, **items}, "last_update": call.now})
    return {"updated": 1}


def delete_metadata(call: Call) -> Mapping[str, Any]:
    """Remove metadata items; keys that are not there do no harm."""
    doc = load(call, call.text("queue"))
    gone = texts(call.params.get("keys"))
    kept = {key: item for key, item in doc.get("metadata", {}).items() if key not in gone}
    call.tx.put(KIND, {**doc, "metadata": kept, "last_update": call.now})
    return {"updated": 1}


def peek_task(call: Call) -> Mapping[str, Any]:
    """Return the first task of a queue and leave it there."""
    entries = load(call, call.text("queue"))["entries"]
    return {"task": entries[0]["task"]} if entries else {}


def num_entries(call: Call) -> Mapping[str, Any]:
    """Count the tasks in a queue."""
    return {"num": len(load(call, call.text("queue"))["entries"])}


_QUEUE = text("queue", required=True)
_TASK = text("task", required=True)
_TAGS = (names("tags"), names("system_tags"))
_METADATA = (text("key", required=True), text("type", required=True), text("value", required=True))
_PLACE = (_QUEUE, _TASK)
_STEPS = (*_PLACE, Field(name="count", type="int"))

ROUTES = (
    Route(name="queues.create", handler=create, fields=(text("name", required=True), *_TAGS), version="2.4"),
    Route(name="queues.get_by_id", handler=get_by_id, fields=(_QUEUE,), version="2.4"),
    Route(name="queues.get_default", handler=get_default, version="2.4"),
    Route(name="queues.get_all", handler=list_queues, version="2.4"),
    Route(name="queues.get_all_ex", handler=list_queues_ex, version="2.4"),
    Route(name="queues.update", handler=update, fields=(_QUEUE, text("name"), *_TAGS), version="2.4"),
    Route(name="queues.delete", handler=delete, fields=(_QUEUE,), version="2.4"),
    Route(name="queues.add_task", handler=add_task, fields=(_QUEUE, _TASK), version="2.4"),
    Route(name="queues.remove_task", handler=remove_task, fields=(_QUEUE, _TASK), version="2.4"),
    Route(name="queues.get_next_task", handler=get_next_task, fields=(_QUEUE, flag("get_task_info"))),
    Route(name="queues.peek_task", handler=peek_task, fields=(_QUEUE,), version="2.15"),
    Route(name="queues.get_num_entries", handler=num_entries, fields=(_QUEUE,), version="2.15"),
    Route(name="queues.move_task_forward", handler=order.forward, fields=_STEPS, version="2.4"),
    Route(name="queues.move_task_backward", handler=order.backward, fields=_STEPS, version="2.4"),
    Route(name="queues.move_task_to_front", handler=order.to_front, fields=_PLACE, version="2.4"),
    Route(name="queues.move_task_to_back", handler=order.to_back, fields=_PLACE, version="2.4"),
    Route(
        name="queues.add_or_update_metadata",
        handler=add_or_update_metadata,
        fields=(listing("metadata", required=True, min_items=1, items=_METADATA), _QUEUE),
        version="2.13",
    ),
    Route(
        name="queues.delete_metadata",
        handler=delete_metadata,
        fields=(_QUEUE, names("keys", min_items=1)),
        version="2.13",
    ),
)
