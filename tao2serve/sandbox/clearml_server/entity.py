"""What a kind of document looks like from outside: its fields, and how queries treat them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .errors import unresolved_field
from .store import Doc


class Shape(Enum):
    """A field without inner structure, or an object whose keys are free."""

    LEAF = "leaf"
    MAP = "map"


Struct = Mapping[str, "Shape | Struct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A kind of document; the rules of reading it are the same for all kinds.

    `patterns`, `lists`, `times`, `ranges` and `flags` name its filters by the way their values are read; a filter that
    is in none of them is ignored, as the real server does.
    """

    kind: str
    plural: str
    fields: Struct
    patterns: tuple[str, ...] = ("name",)
    lists: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    only_by_id: tuple[str, ...] = ()


def leaves(*names: str) -> dict[str, Shape | Struct]:
    """Name fields without inner structure."""
    return dict.fromkeys(names, Shape.LEAF)


def maps(*names: str) -> dict[str, Shape | Struct]:
    """Name fields whose keys are free."""
    return dict.fromkeys(names, Shape.MAP)


def check_path(entity: Entity, path: str, *, expand: bool = False) -> None:
    """Refuse a dotted path the entity does not have; with `expand`, paths may go through references."""
    shape: Shape | Struct = entity.fields
    walked = ""
    for part in path.split("."):
        if expand and walked in entity.references:
            return
        if shape is Shape.MAP:
            return
        if shape is Shape.LEAF or part not in shape:
            raise unresolved_field(part)
        shape = shape[part]
        walked = f"{walked}.{part}" if walked else part


def lookup(doc: Doc, path: str) -> object:
    """Return the value at a dotted path, or None.

    Free keys may hold dots themselves, so the longest key that is there is taken first.
    """
    if path in doc:
        value: object = doc[path]
        return value
    head, dot, tail = path.partition(".")
    while dot:
        inner = doc.get(head)
        if isinstance(inner, dict):
            return lookup(inner, tail)
        more, dot, tail = tail.partition(".")
        head = f"{head}.{more}"
    return None
