"""A training spec held against TAO's own tables: fields it does not know, values it refuses, messages it misses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

from tao2serve.tao.spec_findings import Finding
from tao2serve.tao.spec_rules import MESSAGES, REQUIRED, VALUES, ValueRule
from tao2serve.tao.spec_tree import Block, Scalar, SpecTree
from tao2serve.tao.spec_view import View, root_view

__all__ = ["check_fields"]

_STARTS: Final = "TAO stops before the first epoch"
# TAO's spec loader ends by sys.exit(1), which its train.py takes for an interrupt: the container then says success.
_REFUSED: Final = f"{_STARTS}, and its exit code still says success"
_TRUTHS: Final = ("true", "false", "True", "False", "t", "f", "0", "1")
_WHOLE: Final = re.compile(r"-?\s*(0[xX][0-9a-fA-F]+|\d+)")
_NEAR: Final = 0.6


def check_fields(tree: SpecTree) -> Iterator[Finding]:
    """Yield what TAO refuses in a training spec."""
    yield from _message(root_view(tree), "Experiment")


def _message(view: View, kind: str) -> Iterator[Finding]:
    if kind == "Anything":
        return
    known = MESSAGES[kind]
    yield from _unknown(view, kind)
    for name in REQUIRED.get(kind, ()):
        if not view.has(name):
            yield Finding(
                severity="error", stage="training", field=view.at(name), line=view.line,
                problem="is missing", why=_REFUSED,
                remedy=f"add {name} {{ … }}{f' to {view.path}' if view.path else ''}",
            )  # fmt: skip
    for name, held in known.items():
        yield from _held(view, name, held)


def _held(view: View, name: str, held: str) -> Iterator[Finding]:
    if held.startswith("{"):
        for entry in view.entries(name).values():
            kind = held.strip("{}")
            yield from _unknown_in_entry(entry)
            if kind in MESSAGES:
                yield from _message(entry.message("value"), kind)
            else:
                yield from _scalar(entry, "value", kind, rule=None)
    elif held.rstrip("*") in MESSAGES or held.rstrip("*") == "Anything":
        if held.endswith("*"):
            for inner in view.messages(name):
                yield from _message(inner, held[:-1])
        elif view.has(name):
            yield from _twice(view, name)
            yield from _message(view.message(name), held)
    else:
        if not held.endswith("*"):
            yield from _twice(view, name)
        yield from _scalar(view, name, held.rstrip("*"), rule=VALUES.get(name) if not held.endswith("*") else None)


def _unknown(view: View, kind: str) -> Iterator[Finding]:
    for block in view.blocks:
        for field in block.fields:
            if field.name not in MESSAGES[kind]:
                near = difflib.get_close_matches(field.name, MESSAGES[kind], n=1, cutoff=_NEAR)
                yield Finding(
                    severity="error", stage="training", field=view.at(field.name), line=view.tree.line(field.start),
                    problem="is no field of TAO 5.0", why=f"{_STARTS}: it skips no field that it does not know",
                    remedy=f"write {near[0]}" if near else "take it out",
                )  # fmt: skip


def _unknown_in_entry(entry: View) -> Iterator[Finding]:
    for block in entry.blocks:
        for field in block.fields:
            if field.name not in ("key", "value"):
                yield Finding(
                    severity="error", stage="training", field=entry.at(field.name), line=entry.tree.line(field.start),
                    problem="stands in a map's entry beside key and value",
                    why=f"{_STARTS}: an entry has no other field",
                    remedy="move it into value { … }",
                )  # fmt: skip


def _twice(view: View, name: str) -> Iterator[Finding]:
    fields = view.fields(name)
    if len(fields) > 1:
        lines = ", ".join(str(view.tree.line(field.start)) for field in fields)
        is_message = any(isinstance(value, Block) for field in fields for value in field.values)
        yield Finding(
            severity="warning", stage="training", field=view.at(name), line=view.tree.line(fields[-1].start),
            problem=f"is given {len(fields)} times (lines {lines})",
            why="TAO merges them" if is_message else "TAO takes the last one and says nothing of the others",
            remedy="keep one",
        )  # fmt: skip


def _scalar(view: View, name: str, kind: str, *, rule: ValueRule | None) -> Iterator[Finding]:
    for block in view.blocks:
        for value in (value for field in block.all(name) for value in field.values):
            if isinstance(value, Block) or not _fits(value, kind):
                written, start = ("a message", value.open) if isinstance(value, Block) else (value.text, value.start)
                wanted = _KINDS.get(kind) or "one of " + kind.replace("|", ", ")
                yield Finding(
                    severity="error", stage="training", field=view.at(name), line=view.tree.line(start),
                    problem=f"is {written[:60]}, and TAO reads {wanted} there", why=_STARTS, remedy=f"give {wanted}",
                )  # fmt: skip
                return
    if rule is not None and not _holds(view, name, rule):
        written = view.text(name) or ("0" if rule.holds else '""')
        yield Finding(
            severity="warning" if rule.yet else "error", stage="training", field=view.at(name), line=view.line_of(name),
            problem=(f"is {written}" if view.has(name) else f"is absent, which reads as {written}")
            + f"; it must {rule.words}",
            why=f"{_REFUSED}; {rule.yet}" if rule.yet else _REFUSED,
            remedy=f"give {name} a value that fits: it must {rule.words}", ends_training=True,
        )  # fmt: skip


def _holds(view: View, name: str, rule: ValueRule) -> bool:
    if rule.one_of:
        return view.text(name) in rule.one_of
    return rule.holds(view.number(name)) if rule.holds is not None else bool(view.text(name))


_KINDS: Final = {
    "string": "text in quotes",
    "bool": "true or false",
    "int": "a whole number",
    "uint": "a whole number, 0 or more",
    "float": "a number",
}


def _fits(value: Scalar, kind: str) -> bool:
    if kind == "string":
        return value.is_string
    if kind == "bool":
        return value.text in _TRUTHS
    if kind in ("int", "uint"):
        return _WHOLE.fullmatch(value.text) is not None and (kind == "int" or not value.text.startswith("-"))
    if kind == "float":
        return value.number is not None
    return value.text in kind.split("|") or value.text.isdigit()
