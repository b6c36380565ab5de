"""Filters, order and paging as the recorded server applies them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.sandbox.clearml_server.errors import ApiError
from tao2serve.sandbox.clearml_server.query import order_fields, ordered, page, parse_list, predicate
from tao2serve.sandbox.clearml_server.services.models.entity import MODEL
from tao2serve.sandbox.clearml_server.services.tasks.entity import TASK

DOCS: list[dict[str, Any]] = [
    {"id": "1", "name": "filt-a", "tags": ["x", "y"], "uri": "http://f/a", "created": "2026-01-01T00:00:00+00:00"},
    {"id": "2", "name": "filt-b", "tags": ["x"], "uri": "http://f/b", "metadata": {"acc": {"value": "0.9"}}},
    {"id": "3", "name": "filt-c", "tags": ["y", "z"], "ready": True},
    {"id": "4", "name": "filt-d", "tags": [], "comment": "Hello"},
    {"id": "5", "name": "Filt.E+", "tags": ["x", "y", "z"], "system_tags": ["archived"]},
]


def _select(**params: Any) -> str:
    test = predicate(MODEL, params)
    return "".join(doc["id"] for doc in DOCS if test(doc))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["x"], "125"),
        (["x", "y"], "1235"),
        (["__$all", "x", "y"], "15"),
        (["__$and", "x", "y"], "15"),
        (["__$or", "x", "z"], "1235"),
        (["__$any", "x", "z"], "1235"),
        (["-x"], "34"),
        (["x", "-y"], "2"),
        (["__$not", "x"], "34"),
        (["__$all", "x", "__$not", "z"], "12"),
        (["__$all", "__$not", "x", "y"], "3"),
        ([None], "4"),
        ([], "12345"),
        ("x", "125"),
    ],
)
def test_tags(tags: Any, expected: str) -> None:
    """Plain values are alternatives; operators and exclusions change that as recorded."""
    assert _select(tags=tags) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"name": "filt"}, "1234"),
        ({"name": "^filt-a$"}, "1"),
        ({"name": "FILT"}, ""),
        ({"name": "filt-a|filt-b"}, "12"),
        ({"_any_": {"pattern": "FILT-[ab]", "fields": ["name", "comment"]}}, "12"),
        ({"_all_": {"pattern": "f", "fields": ["name", "uri"]}}, "12"),
        ({"search_text": "hello"}, "4"),
        ({"ready": True}, "3"),
        ({"ready": False}, "1245"),
        ({"system_tags": ["-archived"]}, "1234"),
        ({"id": "2"}, "2"),
        ({"id": []}, "12345"),
        ({"uri": "http://f/b"}, "2"),
        ({"metadata.acc.value": "0.9"}, "2"),
        ({"metadata.acc.value": ["0.8", "0.9"]}, "2"),
        ({"filters": {"tags": {"any": {"include": ["x"], "exclude": ["z"]}}}}, "1245"),
        ({"filters": {"tags": {"all": {"include": ["x", "y"]}}}}, "15"),
        ({"created": ["2000-01-01T00:00:00", None]}, "1"),
        ({"created": [">=2000-01-01T00:00:00", None]}, ""),
        ({"no_such_filter": 1}, "12345"),
        ({"name": "filt", "tags": ["y"]}, "13"),
    ],
)
def test_filters(params: dict[str, Any], expected: str) -> None:
    """Each filter selects what the recorded server selected; unknown ones select all."""
    assert _select(**params) == expected


def test_status_filter_includes_and_excludes() -> None:
    """A status with a minus excludes."""
    docs = [{"status": "created"}, {"status": "completed"}]
    assert [doc for doc in docs if predicate(TASK, {"status": ["-created"]})(doc)] == docs[1:]
    assert [doc for doc in docs if predicate(TASK, {"status": "created"})(doc)] == docs[:1]


@pytest.mark.parametrize(
    ("params", "subcode"), [({"name": "["}, 21), ({"created": ["2000-01-01"]}, 12), ({"last_update": ["x"]}, 12)]
)
def test_malformed_filters_are_refused(params: dict[str, Any], subcode: int) -> None:
    """A broken pattern, half a range and a date that is none are 400."""
    with pytest.raises(ApiError) as caught:
        predicate(TASK, params)
    assert (caught.value.code, caught.value.subcode) == (400, subcode)


@pytest.mark.parametrize("field", ["nosuch", "project.name", "-name.x"])
def test_order_by_unknown_fields_is_refused(field: str) -> None:
    """Order needs fields of the entity itself."""
    with pytest.raises(ApiError) as caught:
        order_fields(MODEL, {"order_by": [field]})
    assert caught.value.subcode == 14


def test_order_puts_missing_values_last_both_ways() -> None:
    """Ascending and descending, a document without the value comes last; ties keep their order."""
    assert [doc["id"] for doc in ordered(DOCS, ("uri",))] == ["1", "2", "3", "4", "5"]
    assert [doc["id"] for doc in ordered(DOCS, ("-uri",))] == ["2", "1", "3", "4", "5"]
    assert [doc["id"] for doc in ordered(DOCS, ("-name",))] == ["4", "3", "2", "1", "5"]


@given(st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_pages_partition_the_list(values: list[int], size: int) -> None:
    """Pages in a row give every document once, in order, and then nothing."""
    docs = [{"id": str(index), "value": value} for index, value in enumerate(values)]
    pages = [page(docs, {"page": number, "page_size": size}) for number in range(len(docs) + 1)]
    assert [doc for part in pages for doc in part] == docs
    assert pages[-1] == []


@given(st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", "__$all", "__$any", "__$not", None])), st.data())
def test_exclusion_wins_unless_joined_by_any(values: list[str | None], data: st.DataObject) -> None:
    """A document with an excluded value passes only when a leading operator joins with *or*."""
    wanted = parse_list(values)
    have = data.draw(st.lists(st.sampled_from(["a", "b", "c"])))
    if not wanted.joined and any(value in have for value in wanted.exclude):
        assert not wanted.accepts(have)
