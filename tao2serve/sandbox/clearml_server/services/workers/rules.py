"""Workers in other rooms: who is alive, who serves a queue, who runs a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ...call import COMPANY, COMPANY_NAME, Call
from ...store import Doc

KIND = "worker"
TIMEOUT_S = 600  # how long a worker, and what runs on it, counts as alive without a word


def store(call: Call, fields: Mapping[str, Any]) -> Doc:
    """Note that a worker is alive, and what else it says."""
    name = call.text("worker")
    fresh = {
        "id": name,
        "company": {"id": COMPANY, "name": COMPANY_NAME},
        "user": {"id": call.who.user, "name": call.who.user},
        "key": f"worker_{COMPANY}_{call.who.user}_{name}",
        "ip": call.peer,
        "tags": [],
        "system_tags": [],
        "register_time": call.now,
        "register_timeout": TIMEOUT_S,
    }
    queues = [{"id": queue} for queue in call.params.get("queues") or ()]
    seen = {"last_activity_time": call.now, "last_report_time": call.now, "queues": queues}
    known = call.tx.get(KIND, name) or {}
    doc = {**fresh, **known, **seen, **fields}
    call.tx.put(KIND, doc)
    return doc


def alive(call: Call) -> Iterator[Doc]:
    """Yield the workers that have spoken within the time they registered for."""
    for doc in call.tx.scan(KIND):
        if seconds_since(call, doc.get("last_report_time")) <= float(doc.get("register_timeout") or TIMEOUT_S):
            yield doc


def serving(call: Call, queue: str) -> list[Doc]:
    """Return the living workers that take tasks from a queue."""
    return [doc for doc in alive(call) if any(one["id"] == queue for one in doc.get("queues") or ())]


def runs(call: Call, task: Doc) -> bool:
    """Whether a worker runs this task, as far as its own reports say."""
    return (
        task["status"] == "in_progress"
        and bool(task.get("last_worker"))
        and seconds_since(call, task.get("last_worker_report")) < TIMEOUT_S
    )


def seconds_since(call: Call, moment: object) -> float:
    """Return the time since a moment, infinite if it is none."""
    if not isinstance(moment, str):
        return float("inf")
    return (datetime.fromisoformat(call.now) - datetime.fromisoformat(moment)).total_seconds()
