"""What a project looks like from outside."""

from __future__ import annotations

from ...entity import Entity, leaves

PROJECT = Entity(
    kind="project",
    plural="projects",
    fields={
        **leaves("id", "company", "user", "name", "basename", "description", "created", "last_update"),
        **leaves("tags", "system_tags", "parent", "path", "featured", "default_output_destination"),
    },
    patterns=("name", "basename", "description"),
    lists=("id", "tags", "system_tags", "parent", "path", "user", "company"),
    times=("last_update",),
    ranges=("created",),
    references={"company": "company", "user": "user", "parent": "project"},
    only_by_id=("path",),
)
