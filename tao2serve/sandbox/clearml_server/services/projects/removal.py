"""Deleting a project: what it holds is cut loose or deleted with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...store import Doc
from .errors import has_contents
from .rules import KIND, load, with_children


def delete(call: Call) -> Mapping[str, Any]:
    """Delete a project and its children; contents need `force`, and go too with `delete_contents`."""
    identifier = call.text("project")
    load(call.tx, identifier)
    family = with_children(call.tx, [identifier])
    tasks = list(call.tx.scan("task", projects=family))
    models = list(call.tx.scan("model", projects=family))
    if not call.flag("force"):
        for kind, docs in (("tasks", tasks), ("models", models)):
            if any("archived" not in doc.get("system_tags", ()) for doc in docs):
                raise has_contents(kind, identifier)
    removed = call.flag("delete_contents")
    _detach(call, "task", tasks, removed=removed)
    _detach(call, "model", models, removed=removed)
    for project in family:
        call.tx.delete(KIND, project)
    return {
        "deleted": 1,
        "disassociated_tasks": 0 if removed else len(tasks),
        "deleted_models": len(models) if removed else 0,
        "deleted_tasks": len(tasks) if removed else 0,
        "urls": _urls(tasks, models) if removed else None,
    }


def _detach(call: Call, kind: str, docs: list[Doc], *, removed: bool) -> None:
    for doc in docs:
        if removed:
            call.tx.delete(kind, doc["id"])
            if kind == "task":
                call.tx.delete_events(doc["id"])
        else:
            call.tx.put(kind, {**doc, "project": None})


def _urls(tasks: list[Doc], models: list[Doc]) -> Mapping[str, list[str]]:
    artifacts = [
        artifact["uri"]
        for task in tasks
        for artifact in task.get("execution", {}).get("artifacts", ())
        if artifact.get("uri")
    ]
    uris = [model["uri"] for model in models if model.get("uri")]
    return {"model_urls": uris, "artifact_urls": artifacts, "event_urls": []}
