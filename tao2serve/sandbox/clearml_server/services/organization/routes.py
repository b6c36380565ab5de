"""The endpoints of `organization`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import COMPANY, COMPANY_NAME, Call, Route
from ..models.entity import MODEL
from ..projects.entity import PROJECT
from ..reading import distinct, select
from ..tasks.entity import TASK

_COUNTED = {"projects": PROJECT, "tasks": TASK, "models": MODEL}


def get_tags(call: Call) -> Mapping[str, Any]:
    """List the tags of tasks and models."""
    docs = [*call.tx.scan(TASK.kind), *call.tx.scan(MODEL.kind)]
    return {"tags": distinct(docs, "tags")}


def user_companies(call: Call) -> Mapping[str, Any]:
    """Return the one company and its one account."""
    owner = {"id": call.who.user, "name": call.who.name, "avatar": None}
    company = {"id": COMPANY, "name": COMPANY_NAME, "allocated": 1, "owners": [owner]}
    return {"companies": [company]}


def entities_count(call: Call) -> Mapping[str, Any]:
    """Count documents that pass the filters given for their kind."""
    counts = {}
    for name, entity in _COUNTED.items():
        if isinstance(call.params.get(name), dict):
            inner = Call(tx=call.tx, params=call.params[name], who=call.who, now=call.now)
            docs = select(entity, inner)
            counts[name] = sum(_counts(doc, hidden=call.flag("search_hidden")) for doc in docs)
    return counts


def _counts(doc: Mapping[str, Any], *, hidden: bool) -> bool:
    return hidden or "hidden" not in doc.get("system_tags", ())


ROUTES = (
    Route(name="organization.get_tags", handler=get_tags),
    Route(name="organization.get_user_companies", handler=user_companies),
    Route(name="organization.get_entities_count", handler=entities_count),
)
