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
from .errors import not_deletable
from .status import load, move

_FORGOTTEN = ("started", "completed", "published", "active_duration", "_enqueued_from", "_totals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What happened to the things a task had made."""

    updated_children: int
    updated_models: int
    deleted_models: int
    urls: Mapping[str, list[str]]


def _cleanup(call: Call, doc: Doc, *, children: bool) -> Cleanup:
    made = [model for model in call.tx.scan(models.KIND) if model.get("task") == doc["id"]]
    used = _used_elsewhere(call, doc)
    drafts = [model for model in made if not model.get("ready") and model["id"] not in used]
    doomed = drafts if call.flag("delete_output_models", default=True) else []
    for model in doomed:
        call.tx.delete(models.KIND, model["id"])
    kept = [model for model in made if model not in doomed]
    if children:
        for model in kept:
            call.tx.put(models.KIND, {**model, "task": deleted_reference(doc["id"])})
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


def _used_elsewhere(call: Call, doc: Doc) -> set[str]:
    """Return the models that other tasks name as input."""
    others = (task for task in call.tx.scan(KIND) if task["id"] != doc["id"])
    return {entry["model"] for task in others for entry in task["models"].get("input", ())}


def artifact_urls(doc: Doc) -> list[str]:
    """Return where the artifacts lie that a task made."""
    artifacts = doc["execution"].get("artifacts", ())
    return [item["uri"] for item in artifacts if item.get("uri") and item.get("mode") != "input"]


def delete(call: Call) -> Mapping[str, Any]:
    """Delete a task; one that is not in state `created` needs force."""
    return _delete(call, call.text("task"))


def delete_many(call: Call) -> Mapping[str, Any]:
    """Delete several tasks."""
    return bulk(texts(call.params["ids"]), lambda identifier: _delete(call, identifier))


def _delete(call: Call, identifier: str) -> Mapping[str, Any]:
    doc = load(call.tx, identifier)
    if doc["status"] != "created" and not call.flag("force"):
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
    force = call.flag("force") or doc["status"] in ("created", "queued")
    removed = queues.discard(call, doc["execution"].get("queue"), doc["id"])
    blank = fresh_task(call, {})
    kept = {key: value for key, value in doc.items() if key not in _FORGOTTEN}
    execution = {key: value for key, value in doc["execution"].items() if key != "queue"}
    execution["artifacts"] = [item for item in execution.get("artifacts", ()) if item.get("mode") == "input"]
    kept |= {key: blank[key] for key in ("last_iteration", "last_metrics", "unique_metrics", "runtime")}
    kept |= {"metric_stats": {}, "models": {**doc["models"], "output": []}, "execution": execution}
    if call.flag("clear_all"):
        kept |= {key: blank[key] for key in ("script", "hyperparams", "configuration", "container")}
        kept |= {"execution": blank["execution"], "models": blank["models"]}
    fields = move(call, kept, "created", force=force, status_reason="reset", status_message="reset")
    result = _cleanup(call, doc, children=False)
    return {
        "deleted_models": result.deleted_models,
        "dequeued": {"removed": 1} if removed else {},
        "events": {},
        "fields": fields,
        "updated": 1,
        "urls": result.urls if call.flag("return_file_urls") else {},
    }
