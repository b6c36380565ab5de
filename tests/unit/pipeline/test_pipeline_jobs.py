"""The jobs of a pipeline's steps: when they have ended, and what their tasks are then called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tao2serve.errors import ServiceError
from tao2serve.pipeline import jobs
from tao2serve.pipeline.jobs import NO_WORKER, local_job, queue_job
from tao2serve.remote.follow import RunState


class _Task:
    """A task as ClearML's SDK has it; `refused` of its next failures are lost, as the SDK loses them."""

    id, name = "task", "deploy"

    def __init__(self, status: str = "created") -> None:
        self.status, self.refused = status, 0
        self.data = SimpleNamespace(status_message="")

    def get_configuration_object(self, _name: str) -> str:
        return "{}"

    def mark_started(self) -> None:
        self.status = "in_progress"

    def mark_stopped(self, **_: Any) -> None:
        self.status = "stopped"

    def mark_completed(self, **_: Any) -> None:
        self.status = "completed"

    def mark_failed(self, **_: Any) -> None:
        self.refused -= 1
        if self.refused < 0:
            self.status = "failed"


class _Job:
    """A command that ends with `code` when it is let go, and with 130 when it is interrupted."""

    def __init__(self) -> None:
        self.code, self.interrupts = 0, 0
        self.may_end = threading.Event()

    def run(self, _folder: Path) -> int:
        assert self.may_end.wait(10)
        return self.code

    def abort(self) -> None:
        self.interrupts += 1


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> _Task:
    """Let ClearML hold one task."""
    made = _Task()
    monkeypatch.setattr(jobs, "clearml", lambda: None)  # whose configuration is not needed
    monkeypatch.setattr(jobs, "look", lambda _id: RunState(status=made.status, message="", worker=""))
    return made


def _job(kind: type[Any], task: _Task) -> Any:
    """Make a job of the task, whose status is asked for at each look."""
    made = object.__new__(kind)
    made.task, made._job_process, made._last_status, made._last_status_ts = task, None, None, 0.0
    return made


@pytest.fixture
def local(task: _Task, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, _Job]:
    """Launch a step here."""
    command = _Job()
    monkeypatch.setattr(jobs, "Job", lambda *_args, **_named: command)
    job = _job(local_job(lambda _step, _line: None), task)
    job.launch()
    return job, command


def _becomes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_step_stopped_in_clearml_is_interrupted_once(local: tuple[Any, _Job], task: _Task) -> None:
    """It counts as running until its command has ended, and is not completed then, though that had done its work."""
    job, command = local
    assert not job.is_stopped()
    task.status, job._last_status = "stopped", None
    assert not any(job.is_stopped() for _ in range(3))
    assert _becomes(lambda: command.interrupts > 0)
    command.may_end.set()
    job.abort()
    assert _becomes(job.is_stopped)
    assert command.interrupts == 1
    assert task.status == "stopped"


@pytest.mark.parametrize(("code", "status"), [(0, "completed"), (8, "failed")])
def test_a_step_is_called_what_its_command_ended_with(
    local: tuple[Any, _Job], task: _Task, code: int, status: str
) -> None:
    """Whether or not the command's own end could be told before."""
    job, command = local
    command.code = code
    command.may_end.set()
    assert _becomes(job.is_stopped)
    assert task.status == status


def test_a_step_whose_failure_could_not_be_told_has_ended(local: tuple[Any, _Job], task: _Task) -> None:
    """Else the pipeline would wait for it without limit."""
    job, command = local
    command.code, task.refused = 1, 9
    command.may_end.set()
    assert _becomes(job.is_stopped)
    assert task.status == "in_progress"


def test_an_interrupted_step_is_stopped(local: tuple[Any, _Job], task: _Task) -> None:
    """And is waited for."""
    job, command = local
    threading.Timer(0.1, command.may_end.set).start()
    job.abort()
    assert job.is_stopped()
    assert (task.status, command.interrupts) == ("stopped", 1)


class _Queue:
    """ClearML's queue of one task; `takes` has a worker take it just before it is dequeued."""

    def __init__(self, task: _Task) -> None:
        self.task, self.takes, self.reason = task, False, ""

    def call(self, _service: str, action: str, **params: Any) -> dict[str, Any]:
        if action == "dequeue":
            if self.takes:
                self.task.status = "in_progress"
            if self.task.status != "queued":
                raise ServiceError("ClearML", "refused")
            self.task.status = "created"
        else:
            self.task.status, self.reason = "stopped", params["status_reason"]
        return {}


@pytest.fixture
def queued(task: _Task, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, _Queue]:
    """Have a step wait in a queue for longer than it may."""
    queue = _Queue(task)
    monkeypatch.setattr(jobs, "call", queue.call)
    job = _job(queue_job(lambda _step, _line: None, 1.0), task)
    job._console, job._deadline = SimpleNamespace(read=lambda: None), time.monotonic() - 1
    task.status = "queued"
    return job, queue


def test_a_step_that_no_worker_takes_is_stopped(queued: tuple[Any, _Queue], task: _Task) -> None:
    """Also if an earlier try came no further than out of the queue."""
    job, queue = queued
    job.status(force=True)
    assert (task.status, queue.reason) == ("stopped", NO_WORKER)
    task.status, job._read_at = "created", 0.0
    job.status(force=True)
    assert task.status == "stopped"


def test_a_step_that_is_taken_just_then_goes_on(queued: tuple[Any, _Queue], task: _Task) -> None:
    """The refusal is no failure of the pipeline."""
    job, queue = queued
    queue.takes = True
    assert job.status(force=True) == "queued"
    assert task.status == "in_progress"


def test_an_interrupted_step_that_is_taken_just_then_is_stopped(queued: tuple[Any, _Queue], task: _Task) -> None:
    """By telling its worker."""
    job, queue = queued
    queue.takes = True
    job.abort()
    assert (task.status, queue.reason) == ("stopped", "interrupted where it was begun")


def test_a_step_whose_worker_died_has_ended(queued: tuple[Any, _Queue], task: _Task) -> None:
    """ClearML's controller would wait for somebody to bring it back."""
    job, _queue = queued
    task.status, task.data.status_message = "stopped", "Forced stop (non-responsive)"
    assert job.is_stopped(aborted_nonresponsive_as_running=True)


@pytest.mark.parametrize(("code", "refused", "failed"), [(8, 0, True), (8, 1, True), (0, 0, False)])
def test_the_end_of_a_step_is_not_told_by_an_older_status(
    local: tuple[Any, _Job], task: _Task, code: int, refused: int, failed: bool
) -> None:
    """Once it counts as ended a missed gate is a failure, though a moment ago it was running; as if it were refused."""
    job, command = local
    command.code, task.refused = code, refused
    assert job.status(force=True) == "in_progress"
    command.may_end.set()
    job._runner.join(10)
    job._last_status, job._last_status_ts = "in_progress", time.time()
    assert job.is_stopped()
    assert (job.is_failed(), job.is_completed()) == (failed, not failed)
