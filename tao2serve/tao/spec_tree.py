"""A spec's text as a tree that knows where each field stands: what is edited or complained about needs its place.

Protobuf's own parser gives values and forgets their places, comments and quotes. This one keeps nothing but places;
whether the text is valid is for protobuf's parser to say (`text.parse_message`), which is asked first.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf import text_encoding

__all__ = ["Block", "Field", "Scalar", "SpecSyntaxError", "SpecTree", "parse_tree"]

_SKIPPED: Final = re.compile(r"(?:\s|#[^\n]*)+")
_STRING: Final = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_BRACKETED: Final = re.compile(r"\[[\w./ -]*\]")  # the name of an extension
_NUMBER: Final = re.compile(r"-?\s*[\w.+]+(?:(?<=[eE])-\d+\w*)?")
_CLOSING: Final = {"{": "}", "<": ">"}
_DEEPEST: Final = 64  # as text.py has it


class SpecSyntaxError(ValueError):
    """The text is not protobuf text format as this parser knows it; the message names the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value that is no message; `text` as it is written, `start` to `end` its place."""

    text: str
    start: int
    end: int

    @property
    def is_string(self) -> bool:
        return self.text[:1] in ("'", '"')

    @property
    def string(self) -> str:
        """The value of a string, adjacent parts joined; any other value as it is written."""
        if not self.is_string:
            return self.text
        parts = (match.group() for match in _STRING.finditer(self.text))
        return b"".join(text_encoding.CUnescape(part[1:-1]) for part in parts).decode("utf-8", "replace")

    @property
    def number(self) -> float | None:
        """The value of a number, None for what is none."""
        try:
            return float(self.text.replace(" ", "").rstrip("fFuUlL"))
        except ValueError:
            pass
        try:
            return float(int(self.text, 0))
        except ValueError:
            return None

    @property
    def truth(self) -> bool:
        return self.text in ("true", "True", "t", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The inside of a message; `open` is the place after its opening brace, `close` that of the closing one."""

    fields: tuple[Field, ...]
    open: int
    close: int

    def all(self, name: str) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.name == name)

    def blocks(self, name: str) -> tuple[Block, ...]:
        """Return the messages under this name, in order, those of a list one by one."""
        return tuple(value for field in self.all(name) for value in field.values if isinstance(value, Block))

    def scalars(self, name: str) -> tuple[Scalar, ...]:
        return tuple(value for field in self.all(name) for value in field.values if isinstance(value, Scalar))


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: `start` to `end` is all of it, with a separator that follows at once; `value_start` to `value_end`
    what is after its name and colon, brackets of a list included."""

    name: str
    values: tuple[Scalar | Block, ...]
    is_list: bool
    start: int
    value_start: int
    value_end: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecTree:
    """A whole file; `root` reaches from its beginning to its end."""

    text: str
    root: Block
    line_starts: tuple[int, ...]

    def line(self, place: int) -> int:
        """Return the number, from 1, of the line a place is in."""
        return bisect.bisect_right(self.line_starts, place)

    def walk(self, *path: str) -> tuple[Block, ...]:
        """Return all messages at a path of names from the root, in file order."""
        found: tuple[Block, ...] = (self.root,)
        for name in path:
            found = tuple(inner for block in found for inner in block.blocks(name))
        return found


def parse_tree(text: str) -> SpecTree:
    """Return the tree of a text that protobuf's parser accepts. Raises SpecSyntaxError for what it cannot follow."""
    starts = (0, *(match.end() for match in re.finditer("\n", text)))
    parser = _Parser(text, starts)
    fields = tuple(parser.fields(until="", depth=0))
    return SpecTree(text=text, root=Block(fields=fields, open=0, close=len(text)), line_starts=starts)


class _Parser:
    """A place in the text that moves forward."""

    def __init__(self, text: str, starts: tuple[int, ...]) -> None:
        self._text = text
        self._starts = starts
        self._at = 0

    def fields(self, *, until: str, depth: int) -> Iterator[Field]:
        """Yield fields up to the closing brace `until`, which stays unread; "" is the end of the file."""
        if depth > _DEEPEST:
            raise self._wrong("it nests too deeply")
        while True:
            self._skip()
            if self._at == len(self._text) if not until else self._peek() == until:
                return
            yield self._field(depth)

    def _field(self, depth: int) -> Field:
        start = self._at
        name = self._match(_WORD) or self._match(_BRACKETED)
        if name is None:
            raise self._wrong("a field's name is missing")
        self._skip()
        if self._peek() == ":":
            self._at += 1
            self._skip()
        value_start, is_list = self._at, self._peek() == "["
        values = tuple(self._list(depth)) if is_list else (self._value(depth),)
        value_end = self._at
        self._skip()
        end = value_end
        if self._peek() in (",", ";"):
            self._at += 1
            end = self._at
        return Field(
            name=name,
            values=values,
            is_list=is_list,
            start=start,
            value_start=value_start,
            value_end=value_end,
            end=end,
        )

    def _list(self, depth: int) -> Iterator[Scalar | Block]:
        self._at += 1
        self._skip()
        while self._peek() != "]":
            yield self._value(depth)
            self._skip()
            if self._peek() == ",":
                self._at += 1
                self._skip()
            elif self._peek() != "]":
                raise self._wrong("a list is not closed")
        self._at += 1

    def _value(self, depth: int) -> Scalar | Block:
        if (closing := _CLOSING.get(self._peek())) is not None:
            self._at += 1
            opened = self._at
            fields = tuple(self.fields(until=closing, depth=depth + 1))
            block = Block(fields=fields, open=opened, close=self._at)
            self._at += 1
            return block
        start = self._at
        if self._match(_STRING) is not None:
            end = self._at
            while True:  # adjacent strings are one
                self._skip()
                if self._match(_STRING) is None:
                    break
                end = self._at
            self._at = end
        elif self._match(_NUMBER) is None:
            raise self._wrong("a value is missing")
        return Scalar(text=self._text[start : self._at], start=start, end=self._at)

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found.group()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        if found := _SKIPPED.match(self._text, self._at):
            self._at = found.end()

    def _wrong(self, what: str) -> SpecSyntaxError:
        return SpecSyntaxError(f"line {bisect.bisect_right(self._starts, self._at)}: {what}")
