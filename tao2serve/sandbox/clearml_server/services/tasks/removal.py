"""Resetting and deleting tasks: what they made goes with them unless it was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...call import Call
from ...store import Doc
from ..events.urls import file_urls
from ..models import rules as models
from ..queues import rules as queues
from ..reading import bulk, deleted_reference, replace_references, texts
from .entity import KIND, fresh_task
from .errors import has_published, not_deletable, published_stays
from .status import load, move

_RESULTS = ("last_iteration", "last_metrics", "metric_stats", "unique_metrics", "runtime")
_FORGOTTEN = (
    *("started", "completed", "published", "active_duration", "last_worker", "last_worker_report"),
    *("_enqueued_from", "_totals"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What happened to the things a task had made."""

    updated_children: int
    updated_models: int
    deleted_models: int
    urls: Mapping[str, list[str]]


def _cleanup(call: Call, doc: Doc, *, children: bool) -> Cleanup:
    """Take away what a task made: drafts go, what is published or in use stays and loses its maker.

    Raises 400/123 where something published depends on the task, unless the call has `force`.
    """
    made = _made(call, doc)
    if not call.flag("force"):
        _check_removable(call, doc, made)
    used = _used_elsewhere(call, doc)
    doomed: list[Doc] = []
    in_use: list[Doc] = []
    kept: list[Doc] = []
    for model in made:
        if model.get("ready") or not call.flag("delete_output_models", default=True):
            kept.append(model)
        else:
            (in_use if model["id"] in used else doomed).append(model)
    for model in doomed:
        call.tx.delete(models.KIND, model["id"])
    for model in kept:
        call.tx.put(models.KIND, {**model, "task": deleted_reference(doc["id"]) if children else None})
    for model in in_use:
        call.tx.put(models.KIND, {**model, "task": None})
    urls = {
        "model_urls": [model["uri"] for model in doomed if model.get("uri")],
        "artifact_urls": artifact_urls(doc),
        "event_urls": file_urls(call.tx, doc["id"]),
    }
    call.tx.delete_events(doc["id"])
    return Cleanup(
        updated_children=replace_references(call.tx, KIND, "parent", doc["id"]) if children else 0,
        updated_models=len(kept) if children else 0,
        deleted_models=len(doomed),
        urls=urls,
    )


def _made(call: Call, doc: Doc) -> list[Doc]:
    """Return the models that the task made, or names as its outputs."""
    outputs = {entry["model"] for entry in doc["models"].get("output", ())}
    return [model for model in call.tx.scan(models.KIND) if model.get("task") == doc["id"] or model["id"] in outputs]


def _check_removable(call: Call, doc: Doc, made: list[Doc]) -> None:
    children = sum(task.get("parent") == doc["id"] and task["status"] == "published" for task in call.tx.scan(KIND))
    if children:
        raise has_published(doc["id"], "children", children=children)
    published = [model for model in made if model.get("ready")]
    own = [model for model in published if model.get("task") == doc["id"]]
    if own:
        raise has_published(doc["id"], "output models", models=len(own))
    if published:
        raise has_published(doc["id"], "output model", model=published[0]["id"])


def _used_elsewhere(call: Call, doc: Doc) -> set[str]:
    """Return the models that other tasks name as input."""
    others = (task for task in call.tx.scan(KIND) if task["id"] != doc["id"])
    return {entry["model"] for task in others for entry in task["models"].get("input", ())}


def artifact_urls(doc: Doc) -> list[str]:
    """Return where the artifacts lie that a task made."""
    artifacts = doc["execution"].get("artifacts", ())
    return [item["uri"] for item in artifacts if item.get("uri") and item.get("mode") != "input"]


def delete(call: Call) -> Mapping[str, Any]:
    """Delete a task; one that is neither in state `created` nor archived needs force."""
    return _delete(call, call.text("task"))


def delete_many(call: Call) -> Mapping[str, Any]:
    """Delete several tasks."""
    return bulk(texts(call.params["ids"]), lambda identifier: _delete(call, identifier))


def _delete(call: Call, identifier: str) -> Mapping[str, Any]:
    doc = load(call.tx, identifier)
    archived = "archived" in doc.get("system_tags", ())
    if doc["status"] != "created" and not archived and not call.flag("force"):
        raise not_deletable(identifier, doc["status"])
    result = _cleanup(call, doc, children=True)
    queues.discard(call, doc["execution"].get("queue"), identifier)
    call.tx.delete(KIND, identifier)
    return {
        "deleted": True,
        "updated_children": result.updated_children,
        "updated_models": result.updated_models,
        "deleted_models": result.deleted_models,
        "urls": result.urls if call.flag("return_file_urls") else None,
    }


def reset(call: Call) -> Mapping[str, Any]:
    """Return a task to `created` without its results; a published one needs force."""
    doc = load(call.tx, call.text("task"))
    if doc["status"] == "published" and not call.flag("force"):
        raise published_stays(doc["id"])
    removed = queues.discard(call, doc["execution"].get("queue"), doc["id"])
    result = _cleanup(call, doc, children=False)
    kept = {key: value for key, value in doc.items() if key not in _FORGOTTEN}
    force = call.flag("force") or doc["status"] in ("created", "queued")
    fields = move(
        call, {**kept, **_emptied(call, doc)}, "created", force=force, status_reason="reset", status_message="reset"
    )
    return {
        "deleted_models": result.deleted_models,
        "dequeued": {"removed": 1} if removed else {},
        "events": {},
        "fields": fields,
        "updated": 1,
        "urls": result.urls if call.flag("return_file_urls") else {},
    }


def _emptied(call: Call, doc: Doc) -> Doc:
    """Return the fields that a reset changes: no results; with `clear_all` no execution and no script either."""
    blank = fresh_task(call, {})
    execution = {key: value for key, value in doc["execution"].items() if key != "queue"}
    execution["artifacts"] = [item for item in execution.get("artifacts", ()) if item.get("mode") == "input"]
    results = {
        key: blank[key] for key in ("last_iteration", "last_metrics", "metric_stats", "unique_metrics", "runtime")
    }
    output = {key: value for key, value in doc.get("output", {}).items() if key not in ("result", "error")}
    changed = {**results, "models": {**doc["models"], "output": []}, "execution": execution, "output": output}
    if call.flag("clear_all"):
        changed |= {key: blank[key] for key in ("execution", "script")}
    return changed
