"""The endpoints of `models`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...projection import present
from ...validation import flag, listing, mapping, names, text
from ..reading import distinct, get_all, get_all_ex
from . import edit, lifecycle
from .entity import KIND, MODEL
from .errors import moved, no_such_model


def get_by_id(call: Call) -> Mapping[str, Any]:
    """Return one model, whole."""
    doc = call.tx.get(KIND, call.text("model"))
    if doc is None:
        raise no_such_model(call.text("model"))
    return {"model": present(doc)}


def list_models(call: Call) -> Mapping[str, Any]:
    """List models: only the fields asked for."""
    return {"models": get_all(MODEL, call)}


def list_models_ex(call: Call) -> Mapping[str, Any]:
    """List models with references as objects."""
    return get_all_ex(MODEL, call)


def frameworks(call: Call) -> Mapping[str, Any]:
    """List the frameworks that models name."""
    return {"frameworks": distinct(call.tx.scan(KIND), "framework")}


def get_by_task_id(call: Call) -> Mapping[str, Any]:
    """Say that this endpoint is gone."""
    raise moved("models.get_by_id/get_all apis")


def update_for_task(call: Call) -> Mapping[str, Any]:
    """Say that this endpoint is gone."""
    raise moved("tasks.add_or_update_model")


_MODEL = text("model", required=True)
_IDS = names("ids", min_items=1)
_PLACE = (text("project"), text("project_name"))
_METADATA = (text("key", required=True), text("type", required=True), text("value", required=True))
_FIELDS = (
    *(text(name) for name in ("comment", "framework", "project", "parent", "task")),
    names("tags"),
    names("system_tags"),
    flag("ready"),
)
_NEW = (
    text("name", required=True),
    text("uri", required=True),
    *_FIELDS,
    mapping("design"),
    mapping("labels"),
    mapping("metadata"),
)

ROUTES = (
    Route(name="models.create", handler=edit.create, fields=_NEW),
    Route(name="models.get_by_id", handler=get_by_id, fields=(_MODEL,)),
    Route(name="models.get_all", handler=list_models),
    Route(name="models.get_all_ex", handler=list_models_ex),
    Route(name="models.get_frameworks", handler=frameworks),
    Route(name="models.edit", handler=edit.edit, fields=(_MODEL, text("name"), text("uri"), *_FIELDS)),
    Route(name="models.update", handler=edit.update, fields=(_MODEL, text("name"), text("uri"), *_FIELDS)),
    Route(
        name="models.add_or_update_metadata",
        handler=edit.add_or_update_metadata,
        fields=(listing("metadata", required=True, min_items=1, items=_METADATA), _MODEL),
        version="2.13",
    ),
    Route(
        name="models.delete_metadata",
        handler=edit.delete_metadata,
        fields=(listing("keys", required=True), _MODEL),
        version="2.13",
    ),
    Route(name="models.set_ready", handler=lifecycle.set_ready, fields=(_MODEL,)),
    Route(name="models.publish_many", handler=lifecycle.publish_many, fields=(_IDS,)),
    Route(name="models.archive_many", handler=lifecycle.archive_many, fields=(_IDS,)),
    Route(name="models.unarchive_many", handler=lifecycle.unarchive_many, fields=(_IDS,)),
    Route(name="models.move", handler=lifecycle.relocate, fields=(_IDS, *_PLACE)),
    Route(name="models.delete", handler=lifecycle.delete, fields=(_MODEL,)),
    Route(name="models.delete_many", handler=lifecycle.delete_many, fields=(_IDS,)),
    Route(name="models.get_by_task_id", handler=get_by_task_id),
    Route(name="models.update_for_task", handler=update_for_task),
)
