"""What a task makes and uses: artifacts and models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...store import Doc
from .entity import KIND
from .status import active_seconds, load, require_created

_MODE = "output"


def _identity(artifact: Mapping[str, Any]) -> tuple[str, str]:
    return str(artifact["key"]), str(artifact.get("mode") or _MODE)


def _store_artifacts(call: Call, doc: Doc, artifacts: Mapping[tuple[str, str], Any]) -> None:
    ordered = sorted(artifacts.values(), key=lambda item: str(item["key"]))
    execution = {**doc.get("execution", {}), "artifacts": ordered}
    call.tx.put(KIND, {**doc, "execution": execution, **call.stamp()})


def add_or_update_artifacts(call: Call) -> Mapping[str, Any]:
    """Set artifacts; one with the same key and mode is replaced whole."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=True)
    current = {_identity(item): item for item in doc["execution"].get("artifacts", ())}
    for artifact in call.params["artifacts"]:
        entry = {key: value for key, value in artifact.items() if value is not None}
        entry = {"mode": _MODE, **entry, "display_data": sorted(entry.get("display_data") or ())}
        current[_identity(entry)] = entry
    _store_artifacts(call, doc, current)
    return {"updated": 1}


def delete_artifacts(call: Call) -> Mapping[str, Any]:
    """Remove artifacts; names that are not there do no harm."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=True)
    gone = {_identity(item) for item in call.params["artifacts"]}
    current = {_identity(item): item for item in doc["execution"].get("artifacts", ())}
    _store_artifacts(call, doc, {key: item for key, item in current.items() if key not in gone})
    return {"deleted": 1}


def add_or_update_model(call: Call) -> Mapping[str, Any]:
    """Name a model as an input or output of the task."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=True)
    side, name = call.text("type"), call.text("name")
    entry = {"name": name, "model": call.text("model"), "updated": call.now}
    entries = list(doc["models"].get(side, ()))
    places = [index for index, item in enumerate(entries) if item["name"] == name]
    if places:
        entries[places[0]] = entry
    else:
        entries.append(entry)
    active = {"active_duration": active_seconds(doc, call.now)}
    call.tx.put(KIND, {**doc, "models": {**doc["models"], side: entries}, **active, **call.stamp()})
    if call.params.get("iteration") is not None:
        _note_iteration(call, doc)
    return {"updated": 1}


def _note_iteration(call: Call, doc: Doc) -> None:
    task = load(call.tx, doc["id"])
    reached = max(int(task.get("last_iteration") or 0), int(call.params["iteration"]))
    call.tx.put(KIND, {**task, "last_iteration": reached})


def delete_models(call: Call) -> Mapping[str, Any]:
    """Take models off the task's inputs and outputs; the models stay."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=True)
    gone = {(item["type"], item["name"]) for item in call.params["models"]}
    models = {
        side: [item for item in entries if (side, item["name"]) not in gone] for side, entries in doc["models"].items()
    }
    call.tx.put(KIND, {**doc, "models": models, **call.stamp()})
    return {"updated": 1}
