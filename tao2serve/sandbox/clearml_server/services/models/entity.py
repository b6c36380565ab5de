"""What a model looks like: a fresh one, and its fields from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import COMPANY, Call
from ...clock import new_id
from ...entity import Entity, leaves, maps
from ...store import Doc

KIND = "model"

MODEL = Entity(
    kind=KIND,
    plural="models",
    fields={
        **leaves("id", "company", "company_origin", "user", "name", "parent", "project", "created", "task"),
        **leaves("comment", "tags", "system_tags", "uri", "framework", "ready", "last_update"),
        **leaves("last_change", "last_changed_by", "last_iteration", "unique_metrics", "ui_cache"),
        **maps("design", "labels", "metadata", "last_metrics", "metric_stats"),
    },
    patterns=("name", "comment"),
    lists=(
        *("id", "user", "company", "project", "task", "parent", "uri", "framework"),
        *("tags", "system_tags", "metadata.*"),
    ),
    times=("last_update", "last_change"),
    ranges=("created", "last_metrics.*", "last_iteration"),
    flags=("ready",),
    references={
        "company": "company",
        "user": "user",
        "project": "project",
        "task": "task",
        "parent": "model",
    },
)


def fresh_model(call: Call, fields: Mapping[str, Any]) -> Doc:
    """Return a new model: what the fields say over ClearML's defaults; it is published unless they say no."""
    return {
        "id": new_id(),
        "company": COMPANY,
        "user": call.who.user,
        "created": call.now,
        **call.stamp(),
        "tags": [],
        "system_tags": [],
        "design": {},
        "labels": {},
        "metadata": {},
        "ready": True,
        "last_iteration": 0,
        "last_metrics": {},
        **fields,
    }
