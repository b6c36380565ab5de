"""The tree of projects: creating with parents, finding children, keeping times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...call import COMPANY, Call
from ...clock import new_id
from ...errors import invalid_reference, validation
from ...store import Doc, Tx
from .errors import blank_name, duplicate, invalid_name, invalid_project_id

KIND = "project"
_SHORTEST = 3
_FEATURED = 9999


def load(tx: Tx, identifier: str) -> Doc:
    """Return a project; 400/401 if there is none."""
    doc = tx.get(KIND, identifier)
    if doc is None:
        raise invalid_project_id(identifier)
    return doc


def normal_name(name: str) -> str:
    """Return the path with trimmed, non-empty components."""
    parts = [part.strip() for part in name.split("/")]
    kept = [part for part in parts if part]
    if not kept:
        raise invalid_name(name)
    return "/".join(kept)


def create(call: Call, name: str, **fields: Any) -> Doc:
    """Create a project and its missing parents; 400/801 if the name is taken."""
    path = normal_name(name)
    if call.tx.by_name(KIND, path):
        raise duplicate(path)
    return _insert(call, path, fields)


def ensure(call: Call, name: str) -> Doc:
    """Return the project of this name, created if it is missing."""
    path = normal_name(name)
    return call.tx.by_name(KIND, path) or _insert(call, path, {})


def _insert(call: Call, path: str, fields: dict[str, Any]) -> Doc:
    head, _, base = path.rpartition("/")
    if len(base) < _SHORTEST:
        raise blank_name()
    parent = ensure(call, head) if head else None
    doc: Doc = {
        "id": new_id(),
        "company": COMPANY,
        "user": call.who.user,
        "name": path,
        "basename": base,
        "description": "",
        "created": call.now,
        "last_update": call.now,
        "tags": [],
        "system_tags": [],
        "featured": _FEATURED,
        "parent": parent["id"] if parent else None,
        "path": [*parent["path"], parent["id"]] if parent else [],
        **{key: value for key, value in fields.items() if value is not None},
    }
    if parent:
        call.tx.put(KIND, {**parent, "last_update": call.now})
    call.tx.put(KIND, doc)
    return doc


def rename(call: Call, doc: Doc, name: str) -> Doc:
    """Give a project another name in the same place; the names of all below it follow.

    Raises 400/12 for a name in another place, 400/801 if the name is taken.
    """
    path = normal_name(name)
    if path == doc["name"]:
        return doc
    if path.rpartition("/")[0] != doc["name"].rpartition("/")[0]:
        raise validation("A project keeps its place when it is renamed")
    if len(path.rpartition("/")[2]) < _SHORTEST:
        raise blank_name()
    if call.tx.by_name(KIND, path):
        raise duplicate(path)
    for child in call.tx.scan(KIND):
        if doc["id"] in (child.get("path") or ()):
            call.tx.put(KIND, {**child, "name": path + child["name"][len(doc["name"]) :]})
    return {**doc, "name": path, "basename": path.rpartition("/")[2]}


def touch(call: Call, identifier: str | None) -> None:
    """Note that something in the project changed."""
    doc = call.tx.get(KIND, identifier) if identifier else None
    if doc:
        call.tx.put(KIND, {**doc, "last_update": call.now})


def check_reference(call: Call, identifier: str | None) -> None:
    """Refuse a document's reference to a project that does not exist."""
    if identifier and call.tx.get(KIND, identifier) is None:
        raise invalid_reference("Project", identifier, "project")


def with_children(tx: Tx, identifiers: Iterable[str]) -> list[str]:
    """Return these projects and all below them."""
    roots = list(identifiers)
    wanted = set(roots)
    below = [doc["id"] for doc in tx.scan(KIND) if wanted.intersection(doc.get("path") or ())]
    return [*roots, *(identifier for identifier in below if identifier not in wanted)]


def target(call: Call, *, project: str | None, project_name: str | None) -> Doc:
    """Return the project that a move names, created if it is named and missing."""
    return load(call.tx, project) if project else ensure(call, project_name or "")
