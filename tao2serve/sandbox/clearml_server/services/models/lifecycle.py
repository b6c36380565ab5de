"""Publishing, archiving, moving and deleting models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...store import Doc
from ..archiving import archive_each
from ..projects import rules as projects
from ..reading import bulk, deleted_reference, texts
from ..tasks import lifecycle as tasks
from .entity import KIND
from .errors import already_ready, in_use, maker_published, no_target
from .rules import load


def set_ready(call: Call) -> Mapping[str, Any]:
    """Publish a model and, unless told otherwise, the task that made it."""
    _, published = _publish(call, call.text("model"))
    answer: dict[str, Any] = {"fields": {}, "updated": 1}
    return {**answer, "published_task": published} if published else answer


def publish_many(call: Call) -> Mapping[str, Any]:
    """Publish several models."""

    def change(identifier: str) -> Mapping[str, Any]:
        updated, published = _publish(call, identifier)
        return {"updated": updated, "published_task": published}

    return bulk(texts(call.params["ids"]), change)


def _publish(call: Call, identifier: str) -> tuple[bool, Mapping[str, Any] | None]:
    doc = load(call.tx, identifier)
    if doc.get("ready"):
        raise already_ready(identifier)
    maker = call.tx.get("task", doc.get("task") or "")
    published = None
    if maker and maker["status"] != "published" and call.flag("publish_task", default=True):
        tasks.publish_from_model(call, maker["id"])
        published = {"id": maker["id"], "data": {"updated": 1}}
    call.tx.put(KIND, {**doc, "ready": True, **call.stamp()})
    return True, published


def archive_many(call: Call) -> Mapping[str, Any]:
    """Archive several models."""
    return archive_each(call, KIND, load, archived=True, changes=call.stamp())


def unarchive_many(call: Call) -> Mapping[str, Any]:
    """Take several models out of the archive."""
    return archive_each(call, KIND, load, archived=False, changes=call.stamp())


def relocate(call: Call) -> Mapping[str, Any]:
    """Move models to a project, created if it is named and missing."""
    project, name = call.params.get("project"), call.params.get("project_name")
    if not project and not name:
        raise no_target()
    target = projects.target(call, project=project, project_name=name)
    for doc in call.tx.scan(KIND, ids=texts(call.params["ids"])):
        call.tx.put(KIND, {**doc, "project": target["id"], **call.stamp()})
    return {"project_id": target["id"]}


def delete(call: Call) -> Mapping[str, Any]:
    """Delete a model; in use, or made by a published task, only with force."""
    identifier = call.text("model")
    return _delete(call, identifier)


def delete_many(call: Call) -> Mapping[str, Any]:
    """Delete several models."""
    return bulk(texts(call.params["ids"]), lambda identifier: _delete(call, identifier))


def _delete(call: Call, identifier: str) -> Mapping[str, Any]:
    doc = load(call.tx, identifier)
    using = [task for task in call.tx.scan("task") if _uses(task, identifier)]
    if not call.flag("force"):
        maker = call.tx.get("task", doc.get("task") or "")
        if using:
            raise in_use(len(using))
        if maker and maker["status"] == "published":
            raise maker_published(maker["id"])
    for task in using:
        call.tx.put("task", {**task, "models": {**task["models"], "input": _marked(task, "input", identifier)}})
    maker = call.tx.get("task", doc.get("task") or "")
    if maker:
        call.tx.put("task", _without_output(call, maker, identifier))
    call.tx.delete(KIND, identifier)
    call.tx.delete_events(identifier)
    return {"deleted": True, "url": doc.get("uri")}


def _uses(task: Doc, identifier: str) -> bool:
    return any(entry["model"] == identifier for entry in task["models"].get("input", ()))


def _marked(task: Doc, side: str, identifier: str) -> list[Doc]:
    """Return a task's models with the deleted one marked."""
    gone = deleted_reference(identifier)
    entries = task["models"].get(side, ())
    return [{**entry, "model": gone} if entry["model"] == identifier else entry for entry in entries]


def _without_output(call: Call, task: Doc, identifier: str) -> Doc:
    """Return the task that made a deleted model: a published one remembers it, others lose it."""
    outputs = task["models"].get("output", [])
    if not any(entry["model"] == identifier for entry in outputs):
        return task
    if task["status"] != "published":
        kept = [entry for entry in outputs if entry["model"] != identifier]
        return {**task, "models": {**task["models"], "output": kept}, "last_change": call.now}
    note = {**task.get("output", {}), "error": f"model deleted on {call.now.removesuffix('+00:00')}"}
    marked = {**task["models"], "output": _marked(task, "output", identifier)}
    return {**task, "models": marked, "output": note, "last_change": call.now}
