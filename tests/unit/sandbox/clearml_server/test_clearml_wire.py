"""Paths, bodies and the envelope."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.sandbox.clearml_server.errors import ApiError
from tao2serve.sandbox.clearml_server.wire import (
    envelope,
    parse_lines,
    parse_object,
    parse_path,
    parse_query,
)


@pytest.mark.parametrize(
    ("path", "name", "version"),
    [
        ("/tasks.get_all", "tasks.get_all", "2.34"),
        ("/v2.23/tasks.get_all", "tasks.get_all", "2.23"),
        ("/v99.9/tasks.get_all", "tasks.get_all", "99.9"),
        ("/v1.5/tasks.get_all", "tasks.get_all", 1.5),
    ],
)
def test_paths(path: str, name: str, version: str | float) -> None:
    """Any version is accepted; versions below 2 are numbers."""
    target = parse_path(path)
    assert (target.name, target.version) == (name, version)


@pytest.mark.parametrize("path", ["/", "/nodots", "/v2/tasks.get_all", "/api/v2.31/tasks.get_all", "/a.b/c"])
def test_malformed_paths_are_400(path: str) -> None:
    """A path of another form names itself in the answer."""
    with pytest.raises(ApiError) as caught:
        parse_path(path)
    assert caught.value.message == f"Invalid request path {path}"


def test_bodies() -> None:
    """Nothing and null are empty objects; lists are refused; lines may hold lists."""
    assert parse_object(b"") == parse_object(b"null") == {}
    assert parse_object(b'{"a": 1}') == {"a": 1}
    assert parse_lines(b'{"a": 1}\n\n[{"b": 2}, {"c": 3}]\nnull\n') == ({"a": 1}, {"b": 2}, {"c": 3})
    assert parse_query("id=x&only_fields[]=a&only_fields[]=b") == {"id": "x", "only_fields": ["a", "b"]}
    with pytest.raises(ApiError, match="Data should be a dict"):
        parse_object(b"[1]")
    with pytest.raises(ApiError):
        parse_object(b'{"name": "\\ud800"}')
    assert parse_object(b'{"name": "\\ud83d\\ude00"}') == {"name": "\U0001f600"}


@given(st.binary())
def test_any_bytes_are_answered_with_an_api_error_at_worst(body: bytes) -> None:
    """No body makes the parser fail in another way."""
    for parse in (parse_object, parse_lines):
        with contextlib.suppress(ApiError):
            parse(body)


def test_errors_have_no_data() -> None:
    """The envelope of an error repeats its code and has empty data."""
    answer = json.loads(envelope(parse_path("/a.b"), actual="1.0", data={"x": 1}, error=ApiError(400, 12, "no")))
    assert answer["data"] == {}
    assert (answer["meta"]["result_code"], answer["meta"]["result_msg"]) == (400, "no")
    assert answer["meta"]["id"] == answer["meta"]["trx"]
