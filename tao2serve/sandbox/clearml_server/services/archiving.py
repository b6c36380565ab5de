"""Archiving, for tasks and models alike: a system tag, put on and taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..call import Call
from ..store import Doc, Tx
from .reading import add_tag, bulk, drop_tag, texts

Load = Callable[[Tx, str], Doc]

_TAG = "archived"


def set_archived(call: Call, kind: str, doc: Doc, *, archived: bool, changes: Mapping[str, Any]) -> None:
    """Store a document as archived or not; `changes` are the fields that say when and why."""
    (add_tag if archived else drop_tag)(doc, _TAG)
    call.tx.put(kind, {**doc, **changes})


def archive_each(call: Call, kind: str, load: Load, *, archived: bool, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Archive or unarchive the call's `ids` one by one; unknown ones are listed as failed."""

    def change(identifier: str) -> Mapping[str, Any]:
        set_archived(call, kind, load(call.tx, identifier), archived=archived, changes=changes)
        return {"archived" if archived else "unarchived": True}

    return bulk(texts(call.params["ids"]), change)
