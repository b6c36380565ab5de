"""Deleting a project: what it holds is cut loose or deleted with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...store import Doc
from ..events.urls import file_urls
from ..tasks.removal import artifact_urls
from .errors import has_contents
from .rules import KIND, load, with_children

_DELETED = "__DELETED__"


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
    urls = _urls(call, tasks, models) if removed else None
    for kind, docs in (("task", tasks), ("model", models)):
        for doc in docs:
            if removed:
                call.tx.delete(kind, doc["id"])
                call.tx.delete_events(doc["id"])
            else:
                call.tx.put(kind, {**doc, "project": None})
    if removed:
        _forget(call, {doc["id"] for doc in tasks}, {doc["id"] for doc in models})
    for project in family:
        call.tx.delete(KIND, project)
    return {
        "deleted": 1,
        "disassociated_tasks": 0 if removed else len(tasks),
        "deleted_models": len(models) if removed else 0,
        "deleted_tasks": len(tasks) if removed else 0,
        "urls": urls,
    }


def _forget(call: Call, tasks: set[str], models: set[str]) -> None:
    """Change what other projects' tasks and models say of tasks and models that are gone."""
    for task in call.tx.scan("task"):
        changed = {**task, "models": _without(task, models)}
        if task.get("parent") in tasks:
            changed["parent"] = None
        if changed != task:
            call.tx.put("task", changed)
    for model in call.tx.scan("model"):
        if model.get("task") in tasks:
            call.tx.put("model", {**model, "task": None})


def _without(task: Doc, gone: set[str]) -> Mapping[str, list[Doc]]:
    """Return a task's models; inputs, and outputs of a published task, keep their place as deleted ones."""
    sides = {}
    for side, entries in task["models"].items():
        kept = [entry for entry in entries if entry["model"] not in gone]
        marked = [{**entry, "model": _DELETED} if entry["model"] in gone else entry for entry in entries]
        sides[side] = marked if side == "input" or task["status"] == "published" else kept
    return sides


def _urls(call: Call, tasks: list[Doc], models: list[Doc]) -> Mapping[str, list[str]]:
    return {
        "model_urls": [model["uri"] for model in models if model.get("uri")],
        "artifact_urls": [url for task in tasks for url in artifact_urls(task)],
        "event_urls": [url for doc in (*tasks, *models) for url in file_urls(call.tx, doc["id"])],
    }
