"""The endpoints of `workers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import COMPANY, COMPANY_NAME, Call, Route
from ...validation import names, text

_KIND = "worker"
_TIMEOUT_S = 600


def register(call: Call) -> Mapping[str, Any]:
    """Note a worker and the queues it serves."""
    _store(call, {"register_time": call.now, "register_timeout": call.params.get("timeout") or _TIMEOUT_S})
    return {}


def _store(call: Call, fields: Mapping[str, Any]) -> None:
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
        "register_timeout": _TIMEOUT_S,
    }
    queues = [{"id": queue} for queue in call.params.get("queues") or ()]
    seen = {"last_activity_time": call.now, "last_report_time": call.now, "queues": queues}
    call.tx.put(_KIND, {**fresh, **(call.tx.get(_KIND, name) or {}), **seen, **fields})


def status_report(call: Call) -> Mapping[str, Any]:
    """Note that a worker is alive, and on what."""
    task = call.params.get("task")
    _store(call, {"task": {"id": task}} if task else {"task": None})
    return {}


def unregister(call: Call) -> Mapping[str, Any]:
    """Forget a worker; an unknown one does no harm."""
    call.tx.delete(_KIND, call.text("worker"))
    return {}


def list_workers(call: Call) -> Mapping[str, Any]:
    """List workers."""
    return {"workers": [{key: value for key, value in doc.items() if value is not None} for doc in call.tx.scan(_KIND)]}


def runtime_properties(call: Call) -> Mapping[str, Any]:
    """Say that a worker has no runtime properties."""
    return {"runtime_properties": []}


_WORKER = (text("worker", required=True), text("task"), names("queues"))

ROUTES = (
    Route(name="workers.register", handler=register, fields=_WORKER, version="2.4"),
    Route(name="workers.unregister", handler=unregister, fields=_WORKER, version="2.4"),
    Route(name="workers.status_report", handler=status_report, fields=_WORKER, version="2.4"),
    Route(name="workers.get_all", handler=list_workers, version="2.4"),
    Route(name="workers.get_runtime_properties", handler=runtime_properties, fields=_WORKER, version="2.4"),
)
