"""The endpoints of `serving`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...validation import text

_KIND = "serving_container"


def register(call: Call) -> Mapping[str, Any]:
    """Note a container that serves an endpoint."""
    return _store(call)


def status_report(call: Call) -> Mapping[str, Any]:
    """Note what a container has done since."""
    return _store(call)


def _store(call: Call) -> Mapping[str, Any]:
    old = call.tx.get(_KIND, call.text("container_id")) or {}
    fields = {key: value for key, value in call.params.items() if value is not None}
    call.tx.put(_KIND, {**old, **fields, "id": call.text("container_id"), "last_update": call.now})
    return {}


def unregister(call: Call) -> Mapping[str, Any]:
    """Forget a container."""
    call.tx.delete(_KIND, call.text("container_id"))
    return {}


def get_endpoints(call: Call) -> Mapping[str, Any]:
    """List endpoints, each with the sum over its containers."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for doc in call.tx.scan(_KIND):
        groups.setdefault((doc["endpoint_name"], doc["model_name"]), []).append(doc)
    return {"endpoints": [_summary(*key, containers) for key, containers in groups.items()]}


def _summary(endpoint: str, model: str, containers: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    def reported(name: str) -> list[Any]:
        return [item[name] for item in containers if item.get(name) is not None]

    latencies = reported("latency_ms")
    return {
        "endpoint": endpoint,
        "model": model,
        "url": containers[-1].get("endpoint_url"),
        "instances": len(containers),
        "uptime_sec": max(reported("uptime_sec"), default=None),
        "requests": sum(reported("requests_num")),
        "requests_min": sum(reported("requests_min")) or None,
        "latency_ms": sum(latencies) / len(latencies) if latencies else None,
        "last_update": max(item["last_update"] for item in containers),
    }


_CONTAINER = (
    text("container_id", required=True),
    text("endpoint_name", required=True),
    text("model_name", required=True),
)

ROUTES = (
    Route(name="serving.register_container", handler=register, fields=_CONTAINER),
    Route(name="serving.container_status_report", handler=status_report, fields=_CONTAINER),
    Route(name="serving.unregister_container", handler=unregister, fields=_CONTAINER[:1]),
    Route(name="serving.get_endpoints", handler=get_endpoints),
)
