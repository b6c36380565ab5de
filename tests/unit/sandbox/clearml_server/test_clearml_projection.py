"""What leaves the server: projections, expansion, nulls and tags."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.sandbox.clearml_server.errors import ApiError
from tao2serve.sandbox.clearml_server.projection import asked_fields, check_fields, expand, present, project
from tao2serve.sandbox.clearml_server.services.tasks.entity import TASK

DOC: dict[str, Any] = {
    "id": "t1",
    "name": "task",
    "user": "u1",
    "project": "p1",
    "parent": None,
    "comment": "",
    "tags": ["z", "a", "z"],
    "script": {"binary": "python"},
    "execution": {"artifacts": [], "parameters": {}},
    "hyperparams": {"General": {"lr.x": {"value": "1"}}},
    "models": {"input": [], "output": [{"name": "o", "model": "m1"}]},
    "unique_metrics": [],
    "_internal": 1,
}


def _resolve(kind: str, identifier: str) -> dict[str, Any] | None:
    return {"id": identifier, "name": f"{kind} {identifier}", "tags": []}


def test_nulls_go_empty_texts_stay_and_tags_are_sorted() -> None:
    """Answers show no nulls and nothing internal; tags come in order, repeated ones too."""
    shown = present(DOC)
    assert "parent" not in shown
    assert "_internal" not in shown
    assert shown["comment"] == ""
    assert shown["tags"] == ["a", "z", "z"]


def test_only_the_fields_asked_for() -> None:
    """Dotted paths give nested objects; a missing leaf leaves its parents empty; no id unless asked."""
    fields = ("name", "execution.artifacts", "script.branch", "hyperparams.General.lr.x", "parent")
    assert project(TASK, DOC, fields) == {
        "name": "task",
        "execution": {"artifacts": []},
        "script": {},
        "hyperparams": {"General": {"lr.x": {"value": "1"}}},
    }


def test_without_fields_all_but_those_kept_for_one() -> None:
    """A listing leaves out what only `get_by_id` shows."""
    assert "unique_metrics" not in project(TASK, DOC, ())


@pytest.mark.parametrize("path", ["nosuch", "project.name", "script.nosuch", "name.x"])
def test_unknown_paths_are_refused(path: str) -> None:
    """A path outside the entity is 400/14, and so is one through a reference."""
    with pytest.raises(ApiError) as caught:
        check_fields(TASK, [path])
    assert caught.value.subcode == 14


def test_a_bare_text_is_read_letter_by_letter() -> None:
    """`only_fields: "name"` asks for the field `n`, as on the recorded server."""
    assert asked_fields({"only_fields": "name"}) == ("n", "a", "m", "e")


def test_expansion_turns_references_into_objects() -> None:
    """The extended listing adds the id, and the inner fields asked for."""
    fields = ("name", "project.name", "models.output.model.name")
    assert expand(TASK, DOC, fields, _resolve) == {
        "id": "t1",
        "name": "task",
        "project": {"id": "p1", "name": "project p1"},
        "models": {"output": [{"name": "o", "model": {"id": "m1", "name": "model m1"}}]},
    }
    assert expand(TASK, DOC, (), _resolve)["user"] == {"id": "u1"}


def test_expansion_leaves_the_document_alone() -> None:
    """Reading never changes what is stored."""
    expand(TASK, DOC, ("models",), _resolve)
    assert DOC["models"]["output"][0]["model"] == "m1"
