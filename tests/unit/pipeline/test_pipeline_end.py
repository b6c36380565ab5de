"""How a pipeline ends: before a step whose forerunner failed, and what is said of one that does not end."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tao2serve.config import Settings
from tao2serve.errors import ServiceError
from tao2serve.pipeline import controller, run
from tao2serve.pipeline.controller import Course
from tao2serve.pipeline.request import PipelineRequest
from tao2serve.pipeline.results import StepResult
from tao2serve.pipeline.reuse import Choice
from tao2serve.registry.source import Source

CHOICE = Choice(model_id="m", name="model", reason="the best", sha256="1" * 64, spec_sha256="2" * 64)


@pytest.fixture
def course() -> Course:
    """Return a pipeline whose first step was begun."""
    request = PipelineRequest(endpoint="street", source=Source(text="m"), until="verify")
    return Course(
        request=request, choice=CHOICE, settings=Settings(), results={}, reused=frozenset(), task_id="pipeline",
        on_line=lambda _step, _line: None, on_status=lambda _step, _status: None, started={"choose": "task"},
    )  # fmt: skip


def _ended(code: int, error: dict[str, Any] | None = None) -> StepResult:
    return StepResult(step="choose", task_id="task", worker="", exit_code=code, error=error or {})


def test_no_step_begins_after_one_that_failed(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ClearML calls its task; nor is its result one to go on from."""
    monkeypatch.setattr(controller, "read_result", lambda _step, _task: _ended(8))
    monkeypatch.setattr(controller, "submit", lambda _: pytest.fail("it was begun"))
    with pytest.raises(ServiceError, match="exit code 8"):
        course.task_of("export")
    assert not course.results


def test_a_pipeline_that_does_not_end_is_not_called_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is marked as stopped all the same."""
    monkeypatch.setattr(controller, "STOP_LIMIT_S", 0.01)
    stopped: list[bool] = []
    runner = controller._Runner(
        SimpleNamespace(_stop_event=threading.Event(), stop=lambda **named: stopped.append(named["mark_aborted"]))
    )
    assert not runner.stop()
    runner._ended.set()
    assert runner.stop()
    assert stopped == [True, True]


def test_an_interrupt_tells_whether_the_pipeline_has_ended(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what its step has left."""
    monkeypatch.setattr(run, "read_result", lambda _step, _task: _ended(130, {"aftermath": "nothing is left"}))
    told: list[str] = []
    monkeypatch.setattr(run, "tell_aftermath", lambda _interrupt, words: told.append(words))
    run._tell_of_interrupt(KeyboardInterrupt(), course)
    course.is_running_on = True
    run._tell_of_interrupt(KeyboardInterrupt(), course)
    assert told[0].startswith("pipeline pipeline is stopped; step choose: nothing is left")
    assert "has not ended after 360 s" in told[1]
    assert "is stopped" not in told[1]


def test_a_step_that_somebody_stopped_is_not_called_a_failure_of_its_command() -> None:
    """With what it has left."""
    error = run._failure(_ended(130, {"exit_code": 130, "aftermath": "nothing is left"}))
    assert "stopped by somebody else" in str(error)
    assert error.aftermath == "nothing is left"
