"""Creating, editing and copying tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...errors import invalid_reference, too_short, validation
from ...projection import present
from ...store import Doc
from ..projects import rules as projects
from .entity import KIND, fresh_task
from .errors import not_editable
from .status import load

_SHORTEST = 3
_LIGHT = ("name", "tags", "system_tags", "comment", "project")
_UPDATABLE = (*_LIGHT, "report", "created")
_WHOLE = ("type", "parent", "models", "container", "hyperparams", "configuration", "runtime", "report")
_MERGED = ("script", "execution")
_CREATABLE = (*_LIGHT, "type", "parent", "models", "container", "hyperparams", "configuration", "script")
_CLONED = ("name", "comment", "type", "project", "output", "script", "hyperparams", "configuration")


def create(call: Call) -> Mapping[str, Any]:
    """Create a task."""
    doc = _validated_new(call)
    call.tx.put(KIND, doc)
    projects.touch(call, doc.get("project"))
    return {"id": doc["id"]}


def validate(call: Call) -> Mapping[str, Any]:
    """Check what `create` would check, and create nothing."""
    _validated_new(call)
    return {}


def _validated_new(call: Call) -> Doc:
    given = {key: call.params[key] for key in (*_CREATABLE, "execution") if call.params.get(key) is not None}
    given["name"] = call.text("name").strip()
    if call.params.get("output_dest"):
        given["output"] = {"destination": call.text("output_dest")}
    _check(call, given)
    return fresh_task(call, given)


def _check(call: Call, fields: Mapping[str, Any]) -> None:
    if "name" in fields and len(fields["name"]) < _SHORTEST:
        raise too_short("name")
    for section in fields.get("hyperparams", {}).values():
        if not isinstance(section, dict):
            raise validation(f"error for field 'hyperparams': ('value is wrong, expected type \"dict\"', {section!r}).")
    projects.check_reference(call, fields.get("project"))
    parent = fields.get("parent")
    if parent and call.tx.get(KIND, parent) is None:
        raise invalid_reference("Task", parent, "parent")


def update(call: Call) -> Mapping[str, Any]:
    """Change what may change in any state: name, comment, tags, project."""
    doc = load(call.tx, call.text("task"))
    fields = {key: call.params[key] for key in _UPDATABLE if call.params.get(key) is not None}
    _check(call, fields)
    return _apply(call, doc, fields, stamp=call.stamp(update=False))


def edit(call: Call) -> Mapping[str, Any]:
    """Change a task that has not started (or any, with force).

    Maps are replaced whole, except that `script` and `execution` merge field by field.
    """
    doc = load(call.tx, call.text("task"))
    if doc["status"] != "created" and not call.flag("force"):
        raise not_editable(doc["status"])
    given = {key: value for key, value in call.params.items() if value is not None}
    fields = {key: given[key] for key in (*_LIGHT, *_WHOLE) if key in given}
    fields |= {key: {**doc.get(key, {}), **given[key]} for key in _MERGED if key in given}
    if "output_dest" in given:
        fields["output"] = {**doc.get("output", {}), "destination": given["output_dest"]}
    _check(call, fields)
    heavy = any(key not in _LIGHT for key in fields)
    return _apply(call, doc, fields, stamp=call.stamp(update=heavy))


def _apply(call: Call, doc: Doc, fields: Mapping[str, Any], *, stamp: Mapping[str, str]) -> Mapping[str, Any]:
    if not fields:
        return {"fields": {}, "updated": 0}
    call.tx.put(KIND, {**doc, **fields, **stamp})
    return {"fields": present({**fields, **stamp}), "updated": 1}


def set_requirements(call: Call) -> Mapping[str, Any]:
    """Set the Python requirements, in any state."""
    doc = load(call.tx, call.text("task"))
    script = {**doc.get("script", {}), "requirements": call.params.get("requirements") or {}}
    call.tx.put(KIND, {**doc, "script": script, **call.stamp()})
    return {"fields": {}, "updated": 1}


def clone(call: Call) -> Mapping[str, Any]:
    """Copy a task without what it produced; its parent defaults to the original."""
    source = load(call.tx, call.text("task"))
    fields = {key: source[key] for key in _CLONED if source.get(key) is not None}
    execution = source.get("execution", {})
    inputs = [item for item in execution.get("artifacts", ()) if item.get("mode") == "input"]
    fields |= {
        "execution": {**{k: v for k, v in execution.items() if k != "queue"}, "artifacts": inputs},
        "models": {"input": source.get("models", {}).get("input", []), "output": []},
        "container": source.get("container", {}),
        "tags": source.get("tags", []),
        "parent": call.params.get("new_task_parent") or source["id"],
    }
    renamed = {
        "name": "new_task_name",
        "comment": "new_task_comment",
        "tags": "new_task_tags",
        "system_tags": "new_task_system_tags",
        "project": "new_task_project",
        "container": "new_task_container",
        "hyperparams": "new_task_hyperparams",
        "configuration": "new_task_configuration",
    }
    fields |= {key: call.params[new] for key, new in renamed.items() if call.params.get(new) is not None}
    answer: dict[str, Any] = {}
    if call.params.get("new_project_name"):
        project = projects.ensure(call, call.text("new_project_name"))
        fields["project"] = project["id"]
        answer["new_project"] = {"id": project["id"], "name": project["name"]}
    _check(call, fields)
    doc = fresh_task(call, fields)
    call.tx.put(KIND, doc)
    projects.touch(call, doc.get("project"))
    return {"id": doc["id"], **answer}
