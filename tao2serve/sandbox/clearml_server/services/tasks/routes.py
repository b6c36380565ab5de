"""The endpoints of `tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...projection import present
from ...store import Doc
from ...validation import Field, flag, listing, mapping, names, text
from ..projects.rules import with_children
from ..reading import distinct, get_all, get_all_ex
from . import edit, lifecycle, outputs, parameters, removal
from .entity import KIND, TASK, TYPES
from .errors import invalid_task_ids


def get_by_id(call: Call) -> Mapping[str, Any]:
    """Return one task, whole."""
    doc = call.tx.get(KIND, call.text("task"))
    if doc is None:
        raise invalid_task_ids(call.text("task"))
    return {"task": present(doc)}


def _scoped(call: Call) -> Call:
    """Widen the project filter to sub-projects if the call asks for it."""
    chosen = call.params.get("project")
    if not (call.flag("include_subprojects") and isinstance(chosen, list) and chosen):
        return call
    wider = {**call.params, "project": with_children(call.tx, chosen)}
    return Call(tx=call.tx, params=wider, who=call.who, now=call.now)


def _visible(call: Call, docs: list[Doc]) -> list[Doc]:
    if call.flag("search_hidden") or call.params.get("id"):
        return docs
    return [doc for doc in docs if "hidden" not in doc["system_tags"]]


def list_tasks(call: Call) -> Mapping[str, Any]:
    """List tasks: only the fields asked for."""
    return {"tasks": get_all(TASK, _scoped(call), keep=_visible)}


def list_tasks_ex(call: Call) -> Mapping[str, Any]:
    """List tasks with references as objects."""
    return get_all_ex(TASK, _scoped(call), keep=_visible)


def get_types(call: Call) -> Mapping[str, Any]:
    """List the types that tasks have."""
    projects = call.params.get("projects")
    return {"types": distinct(call.tx.scan(KIND, projects=projects or None), "type")}


_TASK = text("task", required=True)
_IDS = names("ids", min_items=1)
_PLACE = (text("project"), text("project_name"))
_STATUS = (flag("force"), text("status_message"), text("status_reason"), _TASK)
_PARAMETER = (
    text("name", required=True),
    text("section", required=True),
    Field(name="value", required=True, nullable=False),
    text("type"),
    text("description"),
)
_ARTIFACT = (text("key", required=True), text("mode"), text("type", required=True), text("uri"))
_NEW = (
    text("name", required=True),
    text("type", required=True, choices=TYPES),
    text("project"),
    text("parent"),
    text("comment"),
    names("tags"),
    names("system_tags"),
    mapping("script"),
    mapping("hyperparams"),
    mapping("configuration"),
)
_EDIT = (
    _TASK,
    *(text(name) for name in ("name", "comment", "project", "parent", "output_dest")),
    text("type", choices=TYPES),
    names("tags"),
    names("system_tags"),
    *(mapping(name) for name in ("script", "execution", "runtime", "container")),
    *(mapping(name) for name in ("hyperparams", "configuration", "models")),
)
_CLONE = (
    _TASK,
    *(text(f"new_task_{name}") for name in ("name", "comment", "parent", "project")),
    text("new_project_name"),
    names("new_task_tags"),
    names("new_task_system_tags"),
    *(mapping(f"new_task_{name}") for name in ("container", "hyperparams", "configuration")),
)
_MODEL = (
    text("model", required=True),
    text("name", required=True),
    _TASK,
    text("type", required=True, choices=("input", "output")),
)
_PARAMETERS = Field(name="hyperparams", type="list", items=_PARAMETER)
_NAMED_PARAMETERS = Field(name="hyperparams", type="list", items=(text("name"), text("section", required=True)))

ROUTES = (
    Route(name="tasks.create", handler=edit.create, fields=_NEW),
    Route(name="tasks.validate", handler=edit.validate, fields=_NEW),
    Route(name="tasks.get_by_id", handler=get_by_id, fields=(_TASK,)),
    Route(name="tasks.get_all", handler=list_tasks),
    Route(name="tasks.get_all_ex", handler=list_tasks_ex),
    Route(name="tasks.get_by_id_ex", handler=list_tasks_ex),
    Route(name="tasks.get_types", handler=get_types),
    Route(name="tasks.update", handler=edit.update, fields=_EDIT),
    Route(name="tasks.edit", handler=edit.edit, fields=_EDIT),
    Route(name="tasks.set_requirements", handler=edit.set_requirements, fields=(mapping("requirements"), _TASK)),
    Route(name="tasks.clone", handler=edit.clone, fields=_CLONE),
    Route(name="tasks.get_hyper_params", handler=parameters.get_hyper_params),
    Route(name="tasks.edit_hyper_params", handler=parameters.edit_hyper_params, fields=(_PARAMETERS, _TASK)),
    Route(name="tasks.delete_hyper_params", handler=parameters.delete_hyper_params, fields=(_NAMED_PARAMETERS, _TASK)),
    Route(name="tasks.get_configurations", handler=parameters.get_configurations),
    Route(name="tasks.get_configuration_names", handler=parameters.get_configuration_names),
    Route(name="tasks.edit_configuration", handler=parameters.edit_configuration, fields=(_TASK,)),
    Route(name="tasks.delete_configuration", handler=parameters.delete_configuration, fields=(_TASK,)),
    Route(
        name="tasks.add_or_update_artifacts",
        handler=outputs.add_or_update_artifacts,
        fields=(listing("artifacts", required=True, min_items=1, items=_ARTIFACT), _TASK),
        version="2.10",
    ),
    Route(
        name="tasks.delete_artifacts",
        handler=outputs.delete_artifacts,
        fields=(listing("artifacts", required=True, min_items=1, items=_ARTIFACT[:1]), _TASK),
        version="2.10",
    ),
    Route(
        name="tasks.add_or_update_model",
        handler=outputs.add_or_update_model,
        fields=_MODEL,
        version="2.13",
    ),
    Route(
        name="tasks.delete_models",
        handler=outputs.delete_models,
        fields=(listing("models", required=True, min_items=1, items=(_MODEL[1], _MODEL[3])), _TASK),
        version="2.13",
    ),
    Route(name="tasks.started", handler=lifecycle.started, fields=_STATUS),
    Route(name="tasks.completed", handler=lifecycle.completed, fields=_STATUS, version="2.2"),
    Route(name="tasks.failed", handler=lifecycle.failed, fields=_STATUS),
    Route(name="tasks.stopped", handler=lifecycle.stopped, fields=_STATUS),
    Route(name="tasks.stop", handler=lifecycle.stop, fields=_STATUS),
    Route(name="tasks.stop_many", handler=lifecycle.stop_many, fields=(_IDS,)),
    Route(name="tasks.close", handler=lifecycle.close, fields=_STATUS),
    Route(name="tasks.publish", handler=lifecycle.publish, fields=_STATUS),
    Route(name="tasks.publish_many", handler=lifecycle.publish_many, fields=(_IDS,)),
    Route(name="tasks.enqueue", handler=lifecycle.enqueue, fields=(*_STATUS, text("queue"), text("queue_name"))),
    Route(name="tasks.dequeue", handler=lifecycle.dequeue, fields=(*_STATUS, text("new_status"))),
    Route(name="tasks.enqueue_many", handler=lifecycle.enqueue_many, fields=(_IDS, text("queue"), text("queue_name"))),
    Route(name="tasks.dequeue_many", handler=lifecycle.dequeue_many, fields=(_IDS, text("new_status"))),
    Route(name="tasks.ping", handler=lifecycle.ping, fields=(_TASK,)),
    Route(name="tasks.archive", handler=lifecycle.archive, fields=(names("tasks", min_items=1),)),
    Route(name="tasks.unarchive", handler=lifecycle.unarchive, fields=(names("tasks", min_items=1),)),
    Route(name="tasks.archive_many", handler=lifecycle.archive_many, fields=(_IDS,)),
    Route(name="tasks.unarchive_many", handler=lifecycle.unarchive_many, fields=(_IDS,)),
    Route(name="tasks.move", handler=lifecycle.relocate, fields=(_IDS, *_PLACE)),
    Route(name="tasks.make_public", handler=lifecycle.make_public, fields=(_IDS,), version="2.9"),
    Route(name="tasks.reset", handler=removal.reset, fields=_STATUS),
    Route(name="tasks.delete", handler=removal.delete, fields=_STATUS),
    Route(name="tasks.delete_many", handler=removal.delete_many, fields=(_IDS,)),
)
