"""Creating and editing models and their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...errors import ApiError, invalid_reference, too_short
from ...projection import present
from ..projects import rules as projects
from ..tasks.status import load as load_task
from .entity import KIND, fresh_model
from .errors import invalid_label, invalid_project, not_a_mapping
from .rules import load

_SHORTEST = 3
_CREATABLE = (
    *("name", "uri", "comment", "tags", "system_tags", "framework", "design", "labels", "ready"),
    *("project", "parent", "task", "metadata"),
)
_EDITABLE = _CREATABLE
_UPDATABLE = ("name", "comment", "tags", "system_tags", "uri", "labels", "design", "project", "task")
_LIGHT = ("name", "comment")


def create(call: Call) -> Mapping[str, Any]:
    """Register a model."""
    fields = {key: call.params[key] for key in _CREATABLE if call.params.get(key) is not None}
    _check_values(fields)
    if fields.get("project") and call.tx.get(projects.KIND, fields["project"]) is None:
        raise invalid_project(fields["project"])
    if fields.get("task"):
        load_task(call.tx, fields["task"])
    doc = fresh_model(call, fields)
    call.tx.put(KIND, doc)
    projects.touch(call, doc.get("project"))
    return {"created": True, "id": doc["id"]}


def _check_values(fields: Mapping[str, Any]) -> None:
    if "name" in fields and len(fields["name"].strip()) < _SHORTEST:
        raise too_short("name")
    for name, value in fields.get("labels", {}).items():
        if value is not None and not isinstance(value, int):
            raise invalid_label(name, value)


def edit(call: Call) -> Mapping[str, Any]:
    """Change a model, published or not."""
    return _change(call, _EDITABLE, light=_LIGHT)


def update(call: Call) -> Mapping[str, Any]:
    """Change a model's outer fields; its `last_update` stays."""
    return _change(call, _UPDATABLE, light=_UPDATABLE)


def _change(call: Call, allowed: tuple[str, ...], *, light: tuple[str, ...]) -> Mapping[str, Any]:
    doc = load(call.tx, call.text("model"))
    fields = {key: call.params[key] for key in allowed if call.params.get(key) is not None}
    _check_mappings(fields)
    _check_values(fields)
    projects.check_reference(call, fields.get("project"))
    if fields.get("task") and call.tx.get("task", fields["task"]) is None:
        raise invalid_reference("Task", fields["task"], "task")
    if not fields:
        return {"fields": {}, "updated": 0}
    stamp = call.stamp(update=any(key not in light for key in fields))
    call.tx.put(KIND, {**doc, **fields, **stamp})
    cache: dict[str, Any] = {"ui_cache": {}} if "uri" in fields else {}
    return {"fields": present({**fields, **cache, **stamp}), "updated": 1}


def _check_mappings(fields: Mapping[str, Any]) -> None:
    for key in ("design", "labels"):
        if key in fields:
            try:
                dict(fields[key])
            except (TypeError, ValueError) as error:
                raise not_a_mapping(key, str(error)) from error
    if isinstance(fields.get("metadata"), list):
        raise ApiError(500, 0, "'list' object has no attribute 'items'")


def add_or_update_metadata(call: Call) -> Mapping[str, Any]:
    """Merge metadata items, or replace all with `replace_metadata`."""
    doc = load(call.tx, call.text("model"))
    kept = {} if call.flag("replace_metadata") else doc.get("metadata", {})
    items = {item["key"]: item for item in call.params["metadata"]}
    call.tx.put(KIND, {**doc, "metadata": {**kept, **items}, **call.stamp()})
    return {"updated": 1}


def delete_metadata(call: Call) -> Mapping[str, Any]:
    """Remove metadata items; keys that are not there do no harm."""
    doc = load(call.tx, call.text("model"))
    gone = call.params.get("keys") or ()
    kept = {key: item for key, item in doc.get("metadata", {}).items() if key not in gone}
    call.tx.put(KIND, {**doc, "metadata": kept, **call.stamp()})
    return {"updated": 1}
