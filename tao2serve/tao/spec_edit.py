"""Changes to a spec's text that leave every other byte where it was.

A change is a place and what comes there. New fields of a message that spans lines get lines of their own, indented as
their neighbours are; those of a message on one line stay on that line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tao2serve.tao.spec_tree import Block, Field, SpecTree

__all__ = ["Edit", "NewField", "appended", "apply_edits", "given", "quoted", "removed", "replaced", "shortened"]

_UNIT: Final = "  "
_INDENT: Final = re.compile(r"[ \t]*")
_SKIPPED: Final = re.compile(r"(?:\s|#[^\n]*)+")
_ESCAPED: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Put `text` in the place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewField:
    """A field to be written: `value` as it stands in the file, or `fields` of a message."""

    name: str
    value: str = ""
    fields: tuple[NewField, ...] = ()


def quoted(value: str, *, quote: str = '"') -> str:
    """Return a string as text format writes it; what is not ASCII stays as it is, as TAO's files are UTF-8."""
    escaped = "".join(_ESCAPED.get(character, character) for character in value)
    return quote + escaped.replace(quote, "\\" + quote) + quote


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Return the text with all edits done; they do not overlap, and those at one place come in the order given."""
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, text[at:]])


def replaced(field: Field, value: str) -> Edit:
    """Give a field another value; its name, colon and whatever follows it stay."""
    return Edit(start=field.value_start, end=field.value_end, text=value)


def given(tree: SpecTree, blocks: Sequence[Block], name: str, value: str) -> Edit:
    """Give a message's field a value: the field that counts, which is the last, else a new one in the last block."""
    found = [field for block in blocks for field in block.all(name)]
    return replaced(found[-1], value) if found else appended(tree, blocks[-1], [NewField(name=name, value=value)])


def removed(tree: SpecTree, field: Field) -> Edit:
    """Take a field away, and its line with it if nothing else is on it."""
    text = tree.text
    line_start = text.rfind("\n", 0, field.start) + 1
    line_end = text.find("\n", field.end)
    line_end = len(text) if line_end < 0 else line_end + 1
    if not text[line_start : field.start].strip() and not text[field.end : line_end].strip():
        return Edit(start=line_start, end=line_end, text="")
    blank = re.compile(r"[ \t]*").match(text, field.end)
    at_line_start = not text[line_start : field.start].strip()
    end = blank.end() if blank is not None and not at_line_start else field.end
    return Edit(start=field.start, end=end, text="")


def shortened(tree: SpecTree, field: Field, keep: Collection[int]) -> Iterator[Edit]:
    """Take values out of a list but those at the positions `keep`, at least one; comments between them stay."""
    last = max(keep)
    for position, value in enumerate(field.values):
        if isinstance(value, Block):
            continue
        if position not in keep:
            yield Edit(start=value.start, end=value.end, text="")
        if position + 1 < len(field.values) and not (position in keep and position < last):
            gap = _SKIPPED.match(tree.text, value.end)
            comma = gap.end() if gap is not None else value.end
            yield Edit(start=comma, end=comma + 1, text="")


def appended(tree: SpecTree, block: Block, fields: Iterable[NewField]) -> Edit:
    """Write new fields at the end of a message, before its closing brace."""
    fields = tuple(fields)
    text = tree.text
    line_start = text.rfind("\n", 0, block.close) + 1
    alone = line_start > block.open and not text[line_start : block.close].strip()
    if alone:
        newline = "\r\n" if text[line_start - 2 : line_start] == "\r\n" else "\n"
        written = "".join(f"{line}{newline}" for line in _lines(fields, _indent_inside(tree, block)))
        return Edit(start=line_start, end=line_start, text=written)
    inline = " ".join(_inline(field) for field in fields)
    before = "" if text[block.close - 1 : block.close].isspace() else " "
    return Edit(start=block.close, end=block.close, text=f"{before}{inline} ")


def _lines(fields: Iterable[NewField], indent: str) -> Iterable[str]:
    for field in fields:
        if field.value:
            yield f"{indent}{field.name}: {field.value}"
        else:
            yield f"{indent}{field.name} {{"
            yield from _lines(field.fields, indent + _UNIT)
            yield f"{indent}}}"


def _inline(field: NewField) -> str:
    if field.value:
        return f"{field.name}: {field.value}"
    inside = " ".join(_inline(inner) for inner in field.fields)
    return f"{field.name} {{ {inside} }}"


def _indent_inside(tree: SpecTree, block: Block) -> str:
    """Return the indent of a field that begins a line of this message, else one step more than its own line's."""
    for field in reversed(block.fields):
        line_start = tree.text.rfind("\n", 0, field.start) + 1
        if line_start > block.open and not tree.text[line_start : field.start].strip():
            return tree.text[line_start : field.start]
    closing = tree.text.rfind("\n", 0, block.close) + 1
    found = _INDENT.match(tree.text, closing)
    return (found.group() if found else "") + _UNIT
