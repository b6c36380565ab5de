"""Parameters: what is checked, and the sentences of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.sandbox.clearml_server.errors import ApiError
from tao2serve.sandbox.clearml_server.validation import Field, check, flag, listing, text

FIELDS = (
    text("name", required=True),
    text("type", required=True, choices=("a", "b")),
    listing("items", min_items=1, items=(text("key", required=True), text("value", required=True))),
    flag("on"),
    Field(name="size", type="int"),
)
GOOD: dict[str, Any] = {"name": "n", "type": "a", "items": [{"key": "k", "value": "v"}]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": None}, "error for field 'name'. field is required!"),
        ({"name": 5}, "error for field 'name': ('value is wrong, expected type \"str\"', 5)."),
        ({"type": "c"}, "error for field 'type': value 'c' is not a valid choice.."),
        ({"items": []}, "error for field 'items': value '[]' length is lower than allowed minimum '1'.."),
        ({"items": None}, "error for field 'items'. value '[]' length is lower than allowed minimum '1'."),
        (
            {"items": [{"key": "k"}]},
            "error for field 'items': (\"error for field 'value'.\", validationerror('field is required!')).",
        ),
        (
            {"items": [{"key": "k", "value": 5}]},
            "error for field 'items': error for field 'value': ('value is wrong, expected type \"str\"', 5)..",
        ),
        ({"size": True}, "error for field 'size': ('value is wrong, expected type \"int\"', True)."),
    ],
)
def test_sentences(change: dict[str, Any], sentence: str) -> None:
    """A wrong field is 400/12 with the recorded sentence."""
    with pytest.raises(ApiError) as caught:
        check(FIELDS, {**GOOD, **change})
    assert (caught.value.code, caught.value.subcode) == (400, 12)
    assert caught.value.message == f"Validation error ({sentence})"


def test_unknown_fields_pass() -> None:
    """Clients may send more than the server knows."""
    check(FIELDS, {**GOOD, "method": "get", "bogus": 1})
