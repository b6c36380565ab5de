"""How documents leave the server: nulls dropped, tags sorted, only the fields asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from .entity import Entity, Shape, Struct, check_path
from .store import Doc
from .validation import names_in

Resolve = Callable[[str, str], Doc | None]

_SORTED = ("tags", "system_tags")


def present(doc: Mapping[str, Any]) -> Doc:
    """Return the document as an answer shows it: no nulls at the top, tags in order."""
    shown = {key: value for key, value in doc.items() if value is not None and not key.startswith("_")}
    for key in _SORTED:
        if key in shown:
            shown[key] = sorted(shown[key])
    return shown


def asked_fields(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of `only_fields`, or of its older name `projection`."""
    return names_in(params, "only_fields") or names_in(params, "projection")


def project(entity: Entity, doc: Doc, fields: Sequence[str]) -> Doc:
    """Return the asked fields of a document; without any, all but those kept for `get_by_id`."""
    if not fields:
        return {key: value for key, value in present(doc).items() if key not in entity.only_by_id}
    shown = present(doc)
    out: Doc = {}
    for path in fields:
        _copy(shown, out, path.split("."), entity.fields)
    return out


def check_fields(entity: Entity, fields: Iterable[str], *, expand: bool = False) -> None:
    """Refuse paths that the entity does not have."""
    for path in fields:
        check_path(entity, path, expand=expand)


def _copy(source: Mapping[str, Any], target: Doc, parts: Sequence[str], shape: Shape | Struct) -> None:
    head, rest = parts[0], parts[1:]
    inner = shape[head] if isinstance(shape, Mapping) and head in shape else Shape.MAP
    if head not in source:
        return
    if not rest:
        target[head] = source[head]
    elif isinstance(source[head], Mapping):
        nested = target.setdefault(head, {})
        if nested is not source[head]:
            _copy_free(source[head], nested, rest, inner)


def _copy_free(source: Mapping[str, Any], target: Doc, parts: Sequence[str], shape: Shape | Struct) -> None:
    for size in range(len(parts), 0, -1):
        key = ".".join(parts[:size])
        if key in source:
            _copy(source, target, [key, *parts[size:]], shape)
            return


def expand(entity: Entity, doc: Doc, fields: Sequence[str], resolve: Resolve) -> Doc:
    """Project with references turned into objects: ``{"id": …}`` and the inner fields asked for."""
    plain = tuple(path for path in fields if not _through_reference(entity, path))
    roots = tuple(_reference_of(entity, path) for path in fields if _through_reference(entity, path))
    out = deepcopy(project(entity, doc, ("id", *plain, *roots) if fields else ()))
    for path, kind in entity.references.items():
        inner = tuple(item[len(path) + 1 :] for item in fields if item.startswith(path + "."))
        _expand_at(out, path.split("."), kind, inner, resolve)
    return out


def _through_reference(entity: Entity, path: str) -> bool:
    return any(path.startswith(reference + ".") for reference in entity.references)


def _reference_of(entity: Entity, path: str) -> str:
    found = next(reference for reference in entity.references if path.startswith(reference + "."))
    return found.rsplit(".", 1)[0] if found.startswith("models.") else found


def _expand_at(node: Any, parts: Sequence[str], kind: str, inner: Sequence[str], resolve: Resolve) -> None:
    if isinstance(node, list):
        for item in node:
            _expand_at(item, parts, kind, inner, resolve)
        return
    if not isinstance(node, dict) or node.get(parts[0]) is None:
        return
    if len(parts) > 1:
        _expand_at(node[parts[0]], parts[1:], kind, inner, resolve)
        return
    value = node[parts[0]]
    if isinstance(value, str):
        node[parts[0]] = {"id": value, **_inner(value, kind, inner, resolve)}


def _inner(identifier: str, kind: str, fields: Sequence[str], resolve: Resolve) -> Doc:
    doc = resolve(kind, identifier) if fields else None
    shown = present(doc) if doc else {}
    return {name: shown[name] for name in fields if name in shown}
