"""A task that no worker took in time is taken out of its queue, unless one takes it just then."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.errors import ServiceError
from tao2serve.remote import run
from tao2serve.remote.follow import RunState


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have ClearML note what is asked of it."""
    made: list[str] = []
    monkeypatch.setattr(run, "call", lambda _service, action, **_: made.append(action))
    return made


def _refused(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ServiceError("ClearML", "refused")

    monkeypatch.setattr(run, "call", refuse)
    monkeypatch.setattr(run, "look", lambda _id: RunState(status=status, message="", worker="w"))


def test_a_task_that_waits_is_taken_out_and_stopped(calls: list[str]) -> None:
    """In this order, so that no worker takes a stopped one."""
    assert run._dequeue("task") is None
    assert calls == ["dequeue", "stopped"]


def test_a_task_that_was_taken_just_then_is_watched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is told instead."""
    _refused(monkeypatch, "in_progress")
    state = run._dequeue("task")
    assert state is not None
    assert state.worker == "w"


def test_a_task_that_cannot_be_taken_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is still in there."""
    _refused(monkeypatch, "queued")
    with pytest.raises(ServiceError, match="refused"):
        run._dequeue("task")
