"""Documents are JSON, whatever was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tao2serve.cli.output import print_json
from tao2serve.documents import json_text

ODD = {"a": math.nan, "b": [1.5, -math.inf, {"c": (math.inf, 2)}], "d": Path("x"), "e": True, "f": "NaN"}
PLAIN = {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": "x", "e": True, "f": "NaN"}


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_what_is_no_number_is_null() -> None:
    """Strict parsers refuse NaN and Infinity; all else is as it was."""
    assert json.loads(json_text(ODD), parse_constant=refuse) == PLAIN


def test_json_of_a_command_is_that_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Every --json goes through it."""
    print_json(ODD)
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == PLAIN
