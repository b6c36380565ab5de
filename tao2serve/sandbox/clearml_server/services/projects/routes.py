"""The endpoints of `projects`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...projection import present
from ...store import Doc
from ...validation import missing_fields, names, text
from ..reading import distinct, get_all, get_all_ex
from . import removal, rules
from .entity import PROJECT

_EDITABLE = ("name", "description", "tags", "system_tags", "default_output_destination")
_STATUSES = (
    *("closed", "completed", "created", "failed", "in_progress", "published", "publishing", "queued"),
    *("stopped", "unknown"),
)


def create(call: Call) -> Mapping[str, Any]:
    """Create a project."""
    if call.params.get("name") is None:
        raise missing_fields("name")
    fields = {key: call.params.get(key) for key in _EDITABLE if key != "name"}
    return {"id": rules.create(call, call.text("name"), **fields)["id"]}


def get_by_id(call: Call) -> Mapping[str, Any]:
    """Return one project, with the path of its parents."""
    return {"project": present(rules.load(call.tx, call.text("project")))}


def _visible(call: Call, projects: list[Doc]) -> list[Doc]:
    hidden = call.flag("search_hidden") or call.params.get("id")
    tops = call.flag("shallow_search") and not call.params.get("parent")
    return [doc for doc in projects if (hidden or "hidden" not in doc["system_tags"]) and not (tops and doc["parent"])]


def list_projects(call: Call) -> Mapping[str, Any]:
    """List projects; hidden ones only when asked for."""
    return {"projects": get_all(PROJECT, call, keep=_visible)}


def list_projects_ex(call: Call) -> Mapping[str, Any]:
    """List projects with references as objects and, if asked, what they hold."""
    answer = get_all_ex(PROJECT, call, keep=_visible)
    if call.flag("include_stats"):
        for project in answer["projects"]:
            project.update(_stats(call, project["id"]))
    return answer


def _stats(call: Call, identifier: str) -> Mapping[str, Any]:
    family = rules.with_children(call.tx, [identifier])
    tasks = [task for task in call.tx.scan("task", projects=family) if "archived" not in task.get("system_tags", ())]
    counts = {status: sum(task["status"] == status for task in tasks) for status in _STATUSES}
    started = [task["started"] for task in tasks if task.get("started")]
    active = {
        "status_count": counts,
        "total_tasks": len(tasks),
        "total_runtime": sum(int(task.get("active_duration") or 0) for task in tasks),
        "completed_tasks_24h": 0,
        "last_task_run": max(started, default=None),
    }
    below = [rules.load(call.tx, child) for child in family[1:]]
    return {
        "stats": {"active": active},
        "sub_projects": [{"id": child["id"], "name": child["name"]} for child in below],
    }


def update(call: Call) -> Mapping[str, Any]:
    """Change a project's name, description and tags."""
    doc = rules.load(call.tx, call.text("project"))
    fields = {key: call.params[key] for key in _EDITABLE if call.params.get(key) is not None}
    if "name" in fields:
        doc = rules.rename(call, doc, fields["name"])
        fields["name"] = doc["name"]
    if fields:
        call.tx.put(rules.KIND, {**doc, **fields, "last_update": call.now})
    return {"fields": present(fields), "updated": int(bool(fields))}


def task_tags(call: Call) -> Mapping[str, Any]:
    """List the tags of tasks."""
    return {"tags": distinct(_contents(call, "task"), "tags")}


def model_tags(call: Call) -> Mapping[str, Any]:
    """List the tags of models."""
    return {"tags": distinct(_contents(call, "model"), "tags")}


def _contents(call: Call, kind: str) -> list[Doc]:
    projects = call.params.get("projects")
    return list(call.tx.scan(kind, projects=projects or None))


def hyper_parameters(call: Call) -> Mapping[str, Any]:
    """List the hyperparameters that the tasks of a project have."""
    found = {
        (section, name)
        for task in call.tx.scan("task", projects=[call.text("project")])
        for section, items in task.get("hyperparams", {}).items()
        for name in items
    }
    parameters = [{"section": section, "name": name} for section, name in sorted(found)]
    return {"total": len(parameters), "remaining": 0, "parameters": parameters}


def metric_variants(call: Call) -> Mapping[str, Any]:
    """List the scalars that the tasks of a project reported."""
    project = call.params.get("project")
    found = {}
    for task in call.tx.scan("task", projects=[project] if project else None):
        for metric_hash, variants in task.get("last_metrics", {}).items():
            for variant_hash, value in variants.items():
                found[metric_hash, variant_hash] = (value["metric"], value["variant"])
    metrics = [
        {"metric": metric, "metric_hash": key[0], "variant": variant, "variant_hash": key[1]}
        for key, (metric, variant) in sorted(found.items(), key=lambda item: item[1])
    ]
    return {"metrics": metrics}


_FIELDS = (
    *(text(name) for name in ("name", "description", "default_output_destination")),
    names("tags"),
    names("system_tags"),
)

ROUTES = (
    Route(name="projects.create", handler=create, fields=_FIELDS),
    Route(name="projects.get_by_id", handler=get_by_id, fields=(text("project", required=True),)),
    Route(name="projects.get_all", handler=list_projects),
    Route(name="projects.get_all_ex", handler=list_projects_ex),
    Route(name="projects.update", handler=update, fields=(text("project", required=True), *_FIELDS)),
    Route(name="projects.delete", handler=removal.delete, fields=(text("project", required=True),)),
    Route(name="projects.get_task_tags", handler=task_tags, fields=(names("projects"),), version="2.8"),
    Route(name="projects.get_model_tags", handler=model_tags, fields=(names("projects"),), version="2.8"),
    Route(name="projects.get_hyper_parameters", handler=hyper_parameters, version="2.9"),
    Route(name="projects.get_unique_metric_variants", handler=metric_variants),
)
