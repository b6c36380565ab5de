"""Protobuf text format on disk → a message of our schema, within bounds of size and depth."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from tao2serve.errors import InputError
from tao2serve.tao.schema import new_message

__all__ = ["enum_name", "parse_message", "parse_text", "read_text", "shortest"]

_MAX_BYTES = 8 << 20  # the tutorials' specs are 10 KB
_MAX_NESTING = 64  # theirs nest 6 deep; the parser recurses


def read_text(path: Path) -> str:
    """Return a spec's text. Raises InputError for a file that is missing, too large or not text."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer, and a device never ends
            raise InputError(str(path), "is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(str(path), "is too large for an experiment spec", evidence=f"more than {_MAX_BYTES} bytes")
        if content.startswith(codecs.BOM_UTF8):
            raise InputError(
                str(path),
                "begins with a byte order mark, which TAO takes for text",
                hint="save it without",
            )
        return content.decode("utf-8")
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise InputError(
            str(path), "is not text in UTF-8", evidence=str(error), hint="if it is a spec, save it as UTF-8"
        ) from error


def parse_message(path: Path, kind: str) -> Any:
    """Parse a file as the top-level message `kind` of the schema; fields the schema has not are skipped.

    Raises InputError, with line and column where the parser tells them.
    """
    return parse_text(path, read_text(path), kind)


def parse_text(path: Path, text: str, kind: str) -> Any:
    """Parse a text as `parse_message` does a file; `path` is what errors name.

    As in TAO a message or value that comes twice is merged, the later value counting.
    """
    message = new_message(kind)
    if max(text.count("{"), text.count("<"), text.count("[")) > 100_000 or _nesting(text) > _MAX_NESTING:
        raise InputError(str(path), "nests too deeply for an experiment spec")
    try:
        text_format.Merge(text, message, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InputError(str(path), "is not protobuf text format as TAO reads it", evidence=str(error)[:300]) from error
    except (ValueError, TypeError, OverflowError, RecursionError, AssertionError) as error:
        # the parser lets some broken literals through to Python's own conversions
        raise InputError(
            str(path),
            "is not protobuf text format as TAO reads it",
            evidence=f"{type(error).__name__}: {str(error)[:200]}",
        ) from error
    return message


def _nesting(text: str) -> int:
    """Return the deepest nesting, counting brackets in strings too: an upper bound is enough."""
    depth = deepest = 0
    for character in text:
        if character in "{<[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}>]":
            depth -= 1
    return deepest


def enum_name(message: Any, field: str) -> str:
    """Return the name of an enum field's value, or its number where the schema has no name for it."""
    number = getattr(message, field)
    known = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return str(known.name) if known else str(number)


def shortest(value: float) -> float:
    """Return the shortest decimal with the same float32 value, which is what the author wrote."""
    return float(str(np.float32(value)))
