"""The endpoints of `pipelines`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...call import Call, Route
from ...validation import flag, listing, text
from ..tasks import edit, lifecycle
from ..tasks.status import load

_MESSAGE = "Starting pipeline"


def start_pipeline(call: Call) -> Mapping[str, Any]:
    """Copy a pipeline's controller, give the copy arguments, and put it into a queue."""
    source = load(call.tx, call.text("task"))
    given = {
        str(item["name"]): {"section": "Args", "name": str(item["name"]), "value": str(item.get("value"))}
        for item in call.params.get("args") or ()
    }
    hyperparams = dict(source.get("hyperparams") or {})
    if given:
        hyperparams["Args"] = {**hyperparams.get("Args", {}), **given}
    made = edit.clone(
        replace(
            call,
            params={
                "task": source["id"],
                "new_task_hyperparams": hyperparams,
                "new_task_system_tags": source.get("system_tags", []),
            },
        )
    )
    asked = {"task": made["id"], "queue": call.params.get("queue"), "status_message": _MESSAGE}
    queued = lifecycle.enqueue(replace(call, params={**asked, "verify_watched_queue": call.flag(_VERIFY)}))
    watched = {"queue_watched": queued["queue_watched"]} if "queue_watched" in queued else {}
    return {"pipeline": made["id"], "enqueued": bool(queued["queued"]), **watched}


_VERIFY = "verify_watched_queue"
_ARGUMENT = (text("name", required=True),)

ROUTES = (
    Route(
        name="pipelines.start_pipeline",
        handler=start_pipeline,
        fields=(
            *(text("task", required=True), text("queue", required=True)),
            *(listing("args", items=_ARGUMENT), flag(_VERIFY)),
        ),
    ),
)
