"""Operations on the endpoints of a serving service that others interfere with, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def seen(kept: dict[str, Any], flow: Callable[..., dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """What became of them, once for all tests here."""
    if not kept:
        kept.update(flow("operations.py", str(tmp_path)))
    return kept


def test_an_operation_that_was_taken_for_dead_changes_nothing_more(seen: dict[str, Any]) -> None:
    """Another may be at work by then: exit 5, and the route is as it was; one that had done its work is completed."""
    assert seen["alone"] == [0]
    for code, words in seen["buried"]:
        assert code == 5
        assert "was ended in ClearML while it ran" in words
    assert seen["route_after"] == {"1": 1.0}
    assert seen["ended"] == "completed"


def test_it_gives_signs_of_life_until_it_has_ended(seen: dict[str, Any]) -> None:
    """Uploads at its end may take longer than others wait for a sign."""
    assert seen["signs_while_uploading"] is True


def test_who_deploys_is_alone_on_the_endpoint(seen: dict[str, Any]) -> None:
    """Exit 5, also where nothing is to be changed; one of another machine that fell silent stands in nobody's way."""
    here, elsewhere, silent = seen["alone_beside"]
    assert here[0] == elsewhere[0] == 5
    assert "rollback street" in here[1]
    assert silent == seen["alone_after"] == [0]


def test_a_name_that_somebody_else_uses_is_left_alone(seen: dict[str, Any]) -> None:
    """Exit 2 before anything is claimed: a rollback could not bring that alias back."""
    for code, words in seen["foreign"].values():
        assert code == 2
        assert "alias cars routes to street/1" in words
    assert seen["foreign_stays"] is True
    assert seen["operations_on_it"] == 0


def test_only_a_serving_service_that_runs_is_changed(seen: dict[str, Any]) -> None:
    """Another task exits 2, one that ended 5; clearml-serving would start both again."""
    code, words, status = seen["training"]
    assert (code, status) == (2, "completed")
    assert "does not exist" in words
    code, words, status = seen["stopped"]
    assert (code, status) == (5, "stopped")
    assert "does not run" in words
    assert seen["found"] is True
