"""The reading calls that all kinds of documents share: `get_all`, `get_all_ex`, and bulk changes by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..call import COMPANY, COMPANY_NAME, Call, Params
from ..clock import new_id
from ..entity import Entity
from ..errors import ApiError, validation
from ..projection import asked_fields, check_fields, expand, project
from ..query import as_list, order_fields, ordered, page, predicate
from ..store import Doc, Tx

Keep = Callable[[Call, list[Doc]], list[Doc]]

_SCROLL = "scroll"


def select(entity: Entity, call: Call) -> list[Doc]:
    """Return the documents that pass the filters, in the order asked for, unpaged."""
    order = order_fields(entity, call.params)
    test = predicate(entity, call.params)
    docs = call.tx.scan(
        entity.kind,
        ids=_plain(call.params.get("id")),
        projects=_plain(call.params.get("project")) if "project" in entity.lists else None,
    )
    return ordered([doc for doc in docs if test(doc)], order)


def _plain(value: Any) -> list[str] | None:
    """Return the values of a filter that only includes; None when the filter says more than that."""
    values = as_list(value) if value else []
    texts = [item for item in values if isinstance(item, str)]
    simple = bool(texts) and len(texts) == len(values)
    return texts if simple and not any(item.startswith(("-", "__$")) for item in texts) else None


def get_all(entity: Entity, call: Call, *, keep: Keep = lambda _, docs: docs) -> list[Doc]:
    """Answer a plain listing: only the fields asked for, no id unless asked."""
    check_scroll(call.params)
    fields = asked_fields(call.params)
    check_fields(entity, fields)
    return [project(entity, doc, fields) for doc in page(keep(call, select(entity, call)), call.params)]


def get_all_ex(entity: Entity, call: Call, *, keep: Keep = lambda _, docs: docs) -> dict[str, Any]:
    """Answer an extended listing: ids always, references as objects, scrolling."""
    fields = asked_fields(call.params)
    check_fields(entity, fields, expand=True)
    docs, extra = _scroll(keep(call, select(entity, call)), call)

    def resolve(kind: str, identifier: str) -> Doc | None:
        if kind == "user":
            return {"id": call.who.user, "name": call.who.name}
        if kind == "company":
            return {"id": COMPANY, "name": COMPANY_NAME}
        return call.tx.get(kind, identifier)

    return {entity.plural: [expand(entity, doc, fields, resolve) for doc in docs], **extra}


def check_scroll(params: Params) -> None:
    """Refuse a scroll without a size."""
    if "scroll_id" in params and not (isinstance(params.get("size"), int) and params["size"] > 1):
        raise validation("Integer size parameter greater than 1 should be provided when working with scroll")


def _scroll(docs: list[Doc], call: Call) -> tuple[list[Doc], dict[str, Any]]:
    if "scroll_id" not in call.params:
        return page(docs, call.params), {}
    check_scroll(call.params)
    state = call.tx.get(_SCROLL, call.text("scroll_id")) or {"id": new_id(), "start": 0}
    start, size = int(state["start"]), int(call.params["size"])
    call.tx.put(_SCROLL, {**state, "start": start + size})
    return docs[start : start + size], {"scroll_id": state["id"]}


def bulk(ids: Iterable[str], change: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Apply a change to each id; failures are listed, the others stand."""
    succeeded: list[Mapping[str, Any]] = []
    failed: list[Mapping[str, Any]] = []
    for identifier in ids:
        try:
            succeeded.append({"id": identifier, **change(identifier)})
        except ApiError as error:
            failed.append({"id": identifier, "error": error.as_failure()})
    return {"succeeded": succeeded, "failed": failed}


def distinct(docs: Iterable[Doc], field: str) -> list[str]:
    """Return the sorted distinct values of a list or text field."""
    return sorted({str(item) for doc in docs for item in as_list(doc.get(field)) if item is not None})


def add_tag(doc: Doc, tag: str) -> None:
    """Add a system tag once."""
    doc["system_tags"] = sorted({*doc.get("system_tags", ()), tag})


def drop_tag(doc: Doc, tag: str) -> None:
    """Remove a system tag."""
    doc["system_tags"] = [item for item in doc.get("system_tags", ()) if item != tag]


def replace_references(tx: Tx, kind: str, field: str, identifier: str) -> int:
    """Turn references to a deleted document into ``__DELETED__<id>``; the number of documents changed."""
    changed = [doc for doc in tx.scan(kind) if doc.get(field) == identifier]
    for doc in changed:
        tx.put(kind, {**doc, field: deleted_reference(identifier)})
    return len(changed)


def deleted_reference(identifier: str) -> str:
    """What a reference to a deleted document becomes."""
    return f"__DELETED__{identifier}"


def texts(value: Any) -> Sequence[str]:
    """Return a parameter as a list of texts."""
    return [str(item) for item in as_list(value)] if value else []
