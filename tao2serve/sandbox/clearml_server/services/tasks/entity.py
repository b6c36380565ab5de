"""What a task looks like: a fresh one, and its fields from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import COMPANY, Call
from ...clock import new_id
from ...entity import Entity, Shape, leaves, maps
from ...store import Doc

KIND = "task"

TYPES = (
    *("training", "testing", "inference", "data_processing", "application", "monitor", "controller"),
    *("report", "optimizer", "service", "qc", "custom"),
)

TASK = Entity(
    kind=KIND,
    plural="tasks",
    fields={
        **leaves("id", "company", "company_origin", "user", "name", "type", "status", "status_reason"),
        **leaves("status_message", "status_changed", "comment", "report", "report_assets", "created"),
        **leaves("started", "completed", "published", "active_duration", "parent", "project", "tags"),
        **leaves("system_tags", "last_update", "last_change", "last_iteration", "unique_metrics"),
        **leaves("last_worker", "last_worker_report", "last_changed_by", "enqueue_status"),
        **maps("last_metrics", "metric_stats", "hyperparams", "configuration", "runtime", "container"),
        "output": leaves("destination", "model", "error", "result"),
        "execution": {
            **leaves("test_split", "model", "model_desc", "artifacts", "queue", "framework", "dataviews"),
            **maps("parameters", "model_labels", "model_desc"),
        },
        "script": {
            **leaves("binary", "repository", "tag", "branch", "version_num", "entry_point"),
            **leaves("working_dir", "diff"),
            "requirements": Shape.MAP,
        },
        "models": {
            "input": leaves("name", "model", "updated"),
            "output": leaves("name", "model", "updated"),
        },
    },
    patterns=("name", "comment", "report"),
    lists=(
        *("id", "user", "company", "project", "type", "status", "tags", "system_tags", "parent"),
        *("execution.queue", "script.entry_point", "models.input.model", "models.output.model", "hyperparams.*"),
    ),
    times=("status_changed", "last_update", "last_change"),
    ranges=("created", "started", "active_duration", "last_metrics.*", "last_iteration"),
    flags=("runtime.*",),
    references={
        "company": "company",
        "user": "user",
        "project": "project",
        "parent": "task",
        "execution.queue": "queue",
        "execution.model": "model",
        "models.input.model": "model",
        "models.output.model": "model",
    },
    only_by_id=("unique_metrics",),
)

_NESTED = ("script", "execution", "output")


def fresh_task(call: Call, fields: Mapping[str, Any]) -> Doc:
    """Return a new task: what the fields say over ClearML's defaults."""
    doc: Doc = {
        "id": new_id(),
        "company": COMPANY,
        "user": call.who.user,
        "status": "created",
        "report_assets": [],
        "created": call.now,
        "last_update": call.now,
        "last_change": call.now,
        "last_changed_by": call.who.user,
        "tags": [],
        "system_tags": [],
        "last_iteration": 0,
        "hyperparams": {},
        "configuration": {},
        "runtime": {},
        "models": {"input": [], "output": []},
        "container": {},
        "unique_metrics": [],
        "last_metrics": {},
        "metric_stats": {},
        **_default_parts(),
    }
    for key, value in fields.items():
        doc[key] = {**doc[key], **value} if key in _NESTED else value
    return doc


def _default_parts() -> Doc:
    return {
        "output": {},
        "execution": {
            "test_split": 0,
            "parameters": {},
            "model_desc": {},
            "model_labels": {},
            "artifacts": [],
        },
        "script": {"binary": "python", "repository": "", "entry_point": "", "requirements": {}},
    }
