"""Starting, stopping, completing, publishing, queueing and archiving tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...errors import validation
from ...store import Doc, Tx
from ..archiving import archive_each, set_archived
from ..models import rules as models
from ..projects import rules as projects
from ..queues import rules as queues
from ..reading import bulk, drop_tag, texts
from ..workers import rules as workers
from .entity import KIND
from .errors import already_queued, invalid_move
from .status import load, may_move, move

STOPPING = "stopping"  # the agent's word: it ends the process of a task whose message holds it
_BEFORE = "_enqueued_from"  # the state a queued task had; the underscore keeps it inside the server


def started(call: Call) -> Mapping[str, Any]:
    """Note that a task runs; the start time is that of the latest start."""
    doc = load(call.tx, call.text("task"))
    begun: dict[str, Any] = {}
    if doc["status"] != "in_progress":
        begun = {"started": call.now}
        doc = {key: value for key, value in doc.items() if key not in ("completed", "active_duration")}
    fields = move(call, doc, "in_progress", **begun)
    return {"fields": fields, "started": 1, "updated": 1}


def completed(call: Call) -> Mapping[str, Any]:
    """Note that a task ended well, and publish it if asked."""
    doc = load(call.tx, call.text("task"))
    fields = dict(move(call, doc, "completed", completed=call.now))
    if call.flag("publish"):
        published = _publish(call, load(call.tx, doc["id"]), force=call.flag("force"))
        fields |= {key: published[key] for key in ("status", "status_changed", "last_update", "last_change")}
    return {"fields": fields, "published": int(call.flag("publish")), "updated": 1}


def failed(call: Call) -> Mapping[str, Any]:
    """Note that a task ended badly."""
    doc = load(call.tx, call.text("task"))
    return {"fields": move(call, doc, "failed", completed=call.now), "updated": 1}


def stopped(call: Call) -> Mapping[str, Any]:
    """Note that a task was stopped."""
    doc = load(call.tx, call.text("task"))
    return {"fields": move(call, doc, "stopped", completed=call.now), "updated": 1}


def stop(call: Call) -> Mapping[str, Any]:
    """Ask a task to stop: the worker that runs it is told so by a message; without one it is stopped at once."""
    doc = load(call.tx, call.text("task"))
    return _stop(call, doc)


def _stop(call: Call, doc: Doc) -> Mapping[str, Any]:
    if workers.runs(call, doc) and "development" not in doc["system_tags"]:
        return {"fields": move(call, doc, doc["status"], status_message=STOPPING), "updated": 1}
    fields = move(call, doc, "stopped", status_message=f"Stopped by {call.who.user}")
    queues.discard(call, doc["execution"].get("queue"), doc["id"])
    return {"fields": fields, "updated": 1}


def stop_many(call: Call) -> Mapping[str, Any]:
    """Ask several tasks to stop."""
    return bulk(texts(call.params["ids"]), lambda identifier: _stop(call, load(call.tx, identifier)))


def close(call: Call) -> Mapping[str, Any]:
    """Close a stopped task."""
    doc = load(call.tx, call.text("task"))
    return {"fields": move(call, doc, "closed"), "updated": 1}


def publish(call: Call) -> Mapping[str, Any]:
    """Publish a task and, unless told otherwise, the model it made last."""
    doc = load(call.tx, call.text("task"))
    return {"fields": _publish(call, doc, force=call.flag("force")), "updated": 1}


def _publish(call: Call, doc: Doc, *, force: bool) -> Mapping[str, Any]:
    if not force and not may_move(doc["status"], "published"):
        raise invalid_move(doc["status"], "published")
    outputs = doc["models"].get("output", ())
    if outputs and call.flag("publish_model", default=True):
        models.publish_output(call, outputs[-1]["model"])
    return move(call, doc, "published", force=True, published=call.now, output=doc.get("output", {}))


def publish_many(call: Call) -> Mapping[str, Any]:
    """Publish several tasks."""

    def change(identifier: str) -> Mapping[str, Any]:
        fields = _publish(call, load(call.tx, identifier), force=call.flag("force"))
        return {"updated": 1, "fields": fields}

    return bulk(texts(call.params["ids"]), change)


def publish_from_model(call: Call, identifier: str) -> None:
    """Publish the task that made a model, as `models.set_ready` does."""
    doc = load(call.tx, identifier)
    move(call, doc, "published", force=call.flag("force_publish_task"), published=call.now)


def enqueue(call: Call) -> Mapping[str, Any]:
    """Put a task into a queue: by id, by name (created if missing), or the default one."""
    if call.params.get("queue") and call.params.get("queue_name"):
        raise validation("Either queue id or queue name should be provided")
    return _enqueue(call, call.text("task"))


def _enqueue(call: Call, identifier: str) -> Mapping[str, Any]:
    doc = load(call.tx, identifier)
    queue = queues.find(call, call.params.get("queue"), call.params.get("queue_name"))
    if doc["status"] == "queued":
        raise already_queued(doc["id"])
    drop_tag(doc, "development")
    doc[_BEFORE] = doc["status"]
    doc["execution"] = {**doc["execution"], "queue": queue["id"]}
    fields = move(call, doc, "queued")
    queues.append(call, queue, doc["id"])
    shown = {"enqueue_status": doc[_BEFORE], "execution.queue": queue["id"]}
    watched: Mapping[str, Any] = {}
    if call.flag("verify_watched_queue"):
        watched = {"queue_watched": bool(workers.serving(call, queue["id"]))}
    return {"fields": {**fields, **shown}, "queued": 1, "updated": 1, **watched}


def enqueue_many(call: Call) -> Mapping[str, Any]:
    """Put several tasks into a queue."""
    answer = bulk(texts(call.params["ids"]), lambda identifier: _enqueue(call, identifier))
    done: list[dict[str, Any]] = [dict(one) for one in answer["succeeded"]]
    watched = {one.pop("queue_watched") for one in done if "queue_watched" in one}
    return {**answer, "succeeded": done, **({"queue_watched": all(watched)} if watched else {})}


def dequeue(call: Call) -> Mapping[str, Any]:
    """Take a task out of its queue; it returns to the state it had, or to `new_status`.

    An agent that took the task from the queue names the new state, so the task need not be queued then.
    """
    return _dequeue(call, call.text("task"))


def dequeue_many(call: Call) -> Mapping[str, Any]:
    """Take several tasks out of their queues."""
    return bulk(texts(call.params["ids"]), lambda identifier: _dequeue(call, identifier))


def _dequeue(call: Call, identifier: str) -> Mapping[str, Any]:
    doc = load(call.tx, identifier)
    if doc["status"] != "queued" and not call.text("new_status"):
        raise invalid_move(doc["status"], "created")
    queues.discard(call, doc["execution"].get("queue"), doc["id"])
    target = call.text("new_status") or doc.pop(_BEFORE, None) or "created"
    fields = move(call, doc, target, force=True)
    return {"dequeued": 1, "fields": {**fields, "enqueue_status": None}, "updated": 1}


def ping(call: Call) -> Mapping[str, Any]:
    """Note that a task is alive."""
    doc = load(call.tx, call.text("task"))
    call.tx.put(KIND, {**doc, "last_update": call.now})
    return {}


def archive(call: Call) -> Mapping[str, Any]:
    """Archive tasks; an unknown id changes none."""
    return {"archived": _archive_all(call, archived=True)}


def unarchive(call: Call) -> Mapping[str, Any]:
    """Take tasks out of the archive; an unknown id changes none."""
    return {"unarchived": _archive_all(call, archived=False)}


def _archive_all(call: Call, *, archived: bool) -> int:
    identifiers = texts(call.params["tasks"])
    for identifier in identifiers:
        doc = load(call.tx, identifier)
        kept = _out_of_queue(call, doc) if archived else doc
        set_archived(call, KIND, kept, archived=archived, changes=_archive_notes(call))
    return len(identifiers)


def _out_of_queue(call: Call, doc: Doc) -> Doc:
    """Return a task that waits in no queue: a queued one returns to the state it had."""
    if doc["status"] != "queued":
        return doc
    queues.discard(call, doc["execution"].get("queue"), doc["id"])
    target = doc.pop(_BEFORE, None) or "created"
    move(call, doc, target, force=True)
    return load(call.tx, doc["id"])


def archive_many(call: Call) -> Mapping[str, Any]:
    """Archive several tasks."""

    def waiting_nowhere(tx: Tx, identifier: str) -> Doc:
        return _out_of_queue(call, load(tx, identifier))

    return archive_each(call, KIND, waiting_nowhere, archived=True, changes=_archive_notes(call))


def unarchive_many(call: Call) -> Mapping[str, Any]:
    """Take several tasks out of the archive."""
    return archive_each(call, KIND, load, archived=False, changes=_archive_notes(call))


def _archive_notes(call: Call) -> Mapping[str, str]:
    notes = {name: call.text(name) for name in ("status_reason", "status_message")}
    return {**call.stamp(update=False), **notes}


def relocate(call: Call) -> Mapping[str, Any]:
    """Move tasks to a project, created if it is named and missing."""
    project = projects.target(call, project=call.params.get("project"), project_name=call.params.get("project_name"))
    for doc in call.tx.scan(KIND, ids=texts(call.params["ids"])):
        call.tx.put(KIND, {**doc, "project": project["id"], **call.stamp(update=False)})
    return {"project_id": project["id"]}


def make_public(call: Call) -> Mapping[str, Any]:
    """Take tasks out of their company, for all to read."""
    docs = list(call.tx.scan(KIND, ids=texts(call.params["ids"])))
    for doc in docs:
        call.tx.put(KIND, {**doc, "company": ""})
    return {"updated": len(docs)}
