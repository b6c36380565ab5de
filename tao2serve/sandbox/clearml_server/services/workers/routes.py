"""The endpoints of `workers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...store import Doc
from ...validation import Field, listing, mapping, names, number_in, text
from ..projects.rules import KIND as PROJECT
from ..queues.rules import KIND as QUEUE
from ..reading import texts
from ..tasks.entity import KIND as TASK
from . import rules, stats


def register(call: Call) -> Mapping[str, Any]:
    """Note a worker and the queues it serves."""
    timeout = number_in(call.params, "timeout") or rules.TIMEOUT_S
    tags = {key: call.params[key] for key in ("tags", "system_tags") if call.params.get(key) is not None}
    rules.store(call, {"register_time": call.now, "register_timeout": timeout, **tags})
    return {}


def status_report(call: Call) -> Mapping[str, Any]:
    """Note that a worker is alive, and on what; the task is told who runs it."""
    identifier = call.text("task")
    tags = {key: call.params[key] for key in ("tags", "system_tags") if call.params.get(key) is not None}
    rules.store(call, {"task": {"id": identifier} if identifier else None, **tags})
    task = call.tx.get(TASK, identifier) if identifier else None
    if task is not None:
        seen = {"last_worker": call.text("worker"), "last_worker_report": call.now, "last_update": call.now}
        call.tx.put(TASK, {**task, **seen})
    stats.keep(call)
    return {}


def unregister(call: Call) -> Mapping[str, Any]:
    """Forget a worker; an unknown one does no harm."""
    call.tx.delete(rules.KIND, call.text("worker"))
    return {}


def list_workers(call: Call) -> Mapping[str, Any]:
    """List the workers that are alive, with their queues and what they run."""
    last_seen = number_in(call.params, "last_seen")
    pattern = re.compile(re.escape(call.text("worker_pattern")).replace(r"\*", ".*"))
    wanted = texts(call.params.get("tags")), texts(call.params.get("system_tags"))
    found = []
    for doc in rules.alive(call):
        if last_seen and rules.seconds_since(call, doc["last_activity_time"]) > last_seen:
            continue
        if call.text("worker_pattern") and not pattern.fullmatch(doc["id"]):
            continue
        if all(not tags or set(tags) & set(doc[name]) for name, tags in zip(_TAG_FIELDS, wanted, strict=True)):
            found.append(_shown(call, doc))
    return {"workers": found}


_TAG_FIELDS = ("tags", "system_tags")


def _shown(call: Call, doc: Doc) -> Mapping[str, Any]:
    shown = {key: value for key, value in doc.items() if value is not None}
    shown["queues"] = [_queue(call, str(one["id"])) for one in doc.get("queues") or ()]
    task = call.tx.get(TASK, str(shown["task"]["id"])) if "task" in shown else None
    if task is not None:
        shown["task"] = {"id": task["id"], "name": task["name"], "last_iteration": task.get("last_iteration", 0)}
        if task.get("started"):
            running_ms = 1000 * rules.seconds_since(call, task["started"])
            shown["task"]["running_time"] = round(running_ms)
        project = call.tx.get(PROJECT, str(task.get("project")))
        if project is not None:
            shown["project"] = {"id": project["id"], "name": project["name"]}
    return shown


def _queue(call: Call, identifier: str) -> Mapping[str, Any]:
    queue = call.tx.get(QUEUE, identifier)
    if queue is None:
        return {"id": identifier}
    entries = queue["entries"]
    first = call.tx.get(TASK, entries[0]["task"]) if entries else None
    following = {"next_task": {"id": first["id"], "name": first["name"]}} if first else {}
    return {"id": identifier, "name": queue["name"], **following, "num_tasks": len(entries)}


def runtime_properties(call: Call) -> Mapping[str, Any]:
    """Say that a worker has no runtime properties."""
    return {"runtime_properties": []}


_NAME = text("worker", required=True)
_WORKER = (_NAME, text("task"), names("queues"), names("tags"), names("system_tags"))
_TIMES = (Field(name="from_date", type="float", required=True), Field(name="to_date", type="float", required=True))

ROUTES = (
    Route(name="workers.register", handler=register, fields=_WORKER, version="2.4"),
    Route(name="workers.unregister", handler=unregister, fields=_WORKER, version="2.4"),
    Route(
        name="workers.status_report", handler=status_report, fields=(*_WORKER, mapping("machine_stats")), version="2.4"
    ),
    Route(name="workers.get_all", handler=list_workers, fields=(names("tags"), names("system_tags")), version="2.4"),
    Route(name="workers.get_runtime_properties", handler=runtime_properties, fields=(_NAME,), version="2.4"),
    Route(name="workers.get_metric_keys", handler=stats.metric_keys, fields=(names("worker_ids"),), version="2.4"),
    Route(
        name="workers.get_stats",
        handler=stats.get_stats,
        fields=(
            *_TIMES,
            Field(name="interval", type="int", required=True),
            *(names("worker_ids"), listing("items", required=True, items=(text("key", required=True),))),
        ),
        version="2.4",
    ),
    Route(
        name="workers.get_activity_report",
        handler=stats.activity,
        fields=(*_TIMES, Field(name="interval", type="int", required=True)),
        version="2.4",
    ),
)
