"""Names in a spec that look like a misspelt field: the parser skips what the schema does not have."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from tao2serve.tao.schema import CLUSTERING_FILE_FIELD, message_fields
from tao2serve.tao.text import read_text

__all__ = ["unread_fields"]

_TOKEN = re.compile(
    r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[A-Za-z_]\w*|[-+.\w]+|[{}<>\[\]:]|\n|\S""",
)
_NAME = re.compile(r"[A-Za-z_]\w*")
_CLOSE = 0.85  # difflib's ratio; TAO's own unlisted fields come no nearer than 0.8 to a listed one
_MAX_SHOWN = 20


def unread_fields(path: Path) -> tuple[str, ...]:
    """Say which fields of a spec or clustering file were skipped and are close to one that would be read.

    One sentence each, at most 20. Fields that only TAO needs are not mentioned.
    Raises InputError for a file that cannot be read; a broken one is looked at as far as it makes sense.
    """
    text = read_text(path)
    root = "Spec"
    if re.search(rf"^\s*{CLUSTERING_FILE_FIELD}\b", text, re.MULTILINE):
        root = "ClusteringFile"
    found: dict[str, None] = {}
    for line, name, message in _skipped(text, root):
        near = difflib.get_close_matches(name, message_fields(message), n=1, cutoff=_CLOSE)
        if near:
            found[f"line {line}: {name} is not read; {near[0]} would be"] = None
        if len(found) == _MAX_SHOWN:
            break
    return tuple(found)


def _skipped(text: str, root: str) -> list[tuple[int, str, str]]:
    """Return (line, name, message) of fields that the schema's `message` does not have."""
    skipped: list[tuple[int, str, str]] = []
    stack = [root]  # the messages we are in; "" is one the schema does not have
    field_name, line, after_colon, in_list = "", 1, False, False
    for piece in _TOKEN.findall(text):
        if piece == "\n":
            line += 1
        elif piece == ":":
            after_colon = True
        elif piece in ("[", "]"):
            in_list, after_colon = piece == "[", False
        elif piece in ("{", "<"):
            stack.append(message_fields(stack[-1]).get(field_name, ""))
            after_colon = in_list = False
        elif piece in ("}", ">"):
            if len(stack) > 1:
                stack.pop()
            after_colon = False
        elif after_colon or in_list:
            after_colon = False  # a value
        elif _NAME.fullmatch(piece):
            field_name = piece
            if stack[-1] and piece not in message_fields(stack[-1]):
                skipped.append((line, piece, stack[-1]))
    return skipped
