"""`pipeline`: the order of things, from the choice of a model to what came of its steps."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.errors import GateError, NotReadyError, ParityError, ServiceError, Tao2ServeError, UsageError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.pipeline.controller import STOP_LIMIT_S, Course, run_controller
from tao2serve.pipeline.jobs import NO_WORKER
from tao2serve.pipeline.request import PipelineRequest, check_request
from tao2serve.pipeline.results import StepResult, read_result
from tao2serve.pipeline.reuse import Choice, standing
from tao2serve.pipeline.words import in_words
from tao2serve.registry.source import resolve
from tao2serve.remote.errors import error_of
from tao2serve.remote.follow import look
from tao2serve.remote.queues import find_queue, unserved
from tao2serve.steps import StepEvent, Steps, tell_aftermath

__all__ = ["PipelineOutcome", "run_pipeline"]

GOES_ON: Final = "the same command goes on from there"
INTERRUPTED: Final = 130
ENDED: Final = ("completed", "failed", "aborted")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOutcome:
    """What came of a pipeline; of each step its task, and whether it was done by an earlier run."""

    request: PipelineRequest
    choice: Choice
    task_id: str  # of the controller; "" if nothing had to run
    results: Mapping[str, StepResult]
    reused: frozenset[str]
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve pipeline`."""
        return {
            "outcome": "ok" if self.task_id else "unchanged",
            "pipeline_task_id": self.task_id or None,
            "endpoint": self.request.endpoint,
            "model": {"model_id": self.choice.model_id, "name": self.choice.name, "reason": self.choice.reason},
            "pipeline": [_told(step, self.results.get(step), self.reused) for step in self.request.steps],
            "steps": self.steps.to_list(),
        }


def run_pipeline(request: PipelineRequest, settings: Settings, *, steps: Steps) -> PipelineOutcome:
    """Run what has not been done yet of the pipeline, and return what came of all of it.

    Raises what the step that failed ended with: its class, exit code and words; what was done before it stands, and a
    repeated command goes on from there.
    """
    check_request(request)
    with steps.step("choose the trained model") as step:
        choice = choose(request)
        step.note(f"{choice.name}: {choice.reason}")
    if request.queue is not None:
        with steps.step("find the queue") as step:
            queue = find_queue(request.queue.name)
            if not queue.workers and not request.queue.wait_for_worker:
                raise unserved(queue)
            step.note(str(queue))
    shown = _Shown(steps)
    course = Course(
        request=request, choice=choice, settings=settings, results={}, reused=frozenset(), on_line=shown.line,
        on_status=shown.status,
    )  # fmt: skip
    with steps.step("see what stands") as step:
        course.results = standing(request, choice, settings, project=course.project, on_news=step.news)
        course.reused = frozenset(course.results)
        step.note(", ".join(course.results) or "nothing yet")
    if len(course.results) < len(request.steps):
        try:
            run_controller(course)
        except KeyboardInterrupt as interrupt:
            with deferred_interrupts():
                _tell_of_interrupt(interrupt, course)
            raise
        _gather(course)
    return PipelineOutcome(
        request=request,
        choice=choice,
        task_id=course.task_id,
        results=course.results,
        reused=course.reused,
        steps=steps,
    )


def choose(request: PipelineRequest) -> Choice:
    """Find the trained model and fetch it, since a pipeline is about its content; raises UsageError for a file."""
    with tempfile.TemporaryDirectory(prefix="tao2serve-pipeline-") as folder:
        found = resolve(request.source, directory=Path(folder))
        if found.trained is None:
            raise UsageError(
                request.source.text, "is a file, and a pipeline hands on what ClearML tracks",
                hint="put it into ClearML: tao2serve adopt RESULTS_DIR --project NAME --task NAME",
            )  # fmt: skip
        return Choice(
            model_id=found.trained.model_id, name=found.trained.name, reason=found.reason, sha256=found.sha256,
            spec_sha256=found.spec_sha256,
        )  # fmt: skip


def _tell_of_interrupt(interrupt: KeyboardInterrupt, course: Course) -> None:
    """Say which step was interrupted, and what its command said that it leaves behind."""
    said = [f"pipeline {course.task_id} is stopped" if course.task_id else "no pipeline was begun"]
    running = next((step for step in course.started if step not in course.results), "")
    if course.is_running_on:
        said = [f"pipeline {course.task_id} was told to stop, and has not ended after {STOP_LIMIT_S:g} s"]
    if running:
        interrupt.add_note(f"step: {running}")
        with contextlib.suppress(Exception):  # it may have ended without a word
            left = read_result(running, course.started[running]).error.get("aftermath")
            said += [f"step {running}: {left}"] if left else []
    tell_aftermath(interrupt, "; ".join([*said, GOES_ON]))


class _Shown:
    """Shows the controller's steps as steps of ours; it is called from the controller's threads."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._begun: dict[str, float] = {}
        self._lock = threading.Lock()

    def line(self, step: str, line: str) -> None:
        with self._lock:
            self._begin(step)
            self._steps.watch(StepEvent(kind="news", name=step, detail=line))

    def status(self, step: str, status: str) -> None:
        with self._lock:
            if status in ("queued", "running"):
                self._begin(step)
            if status in ENDED and step in self._begun:
                took_s = time.monotonic() - self._begun.pop(step)
                event = StepEvent(kind="done" if status == "completed" else "failed", name=step, seconds=took_s)
                self._steps.watch(event)
                if status == "completed":
                    self._steps.done.append(event)

    def _begin(self, step: str) -> None:
        if step not in self._begun:
            self._begun[step] = time.monotonic()
            self._steps.watch(StepEvent(kind="started", name=step))


def _gather(course: Course) -> None:
    """Read the results of what ran; raises what the step that failed ended with."""
    for step in course.request.steps:
        if step in course.results:
            continue
        task_id = course.started.get(step)
        if task_id is None:
            raise _placed(course.error or ServiceError(f"step {step}", "was not begun"), step, course)
        try:
            result = read_result(step, task_id)
        except Tao2ServeError as error:
            raise _placed(_unended(error, task_id), step, course) from error
        if result.exit_code:
            raise _placed(_failure(result), step, course)
        course.results[step] = result


def _unended(error: Tao2ServeError, task_id: str) -> Tao2ServeError:
    if NO_WORKER not in look(task_id).message:
        return error
    return NotReadyError(
        f"ClearML task {task_id}", "was taken by no worker in time", hint="--queue-wait 1h, or add one"
    )


def _failure(result: StepResult) -> Tao2ServeError:
    """Return the failure of a step's command as the same failure here; a missed gate is told by its document."""
    if result.exit_code == INTERRUPTED:
        stopped = ServiceError(f"step {result.step}, ClearML task {result.task_id}", "was stopped by somebody else")
        stopped.aftermath = str(result.error.get("aftermath") or "")
        return stopped
    if result.error:
        return error_of(result.error, ran_on={"worker": result.worker, "task_id": result.task_id})
    kind = {ParityError.exit_code: ParityError, GateError.exit_code: GateError}.get(result.exit_code, Tao2ServeError)
    document = result.document
    said = [str(one) for one in document.get("reasons") or document.get("failures") or ()]
    fact = {
        ParityError.exit_code: "is not what it was made from",
        GateError.exit_code: "missed its load gate",
    }.get(result.exit_code, f"ended with exit code {result.exit_code}")
    error = kind(f"step {result.step}", fact, evidence="\n".join(said))
    if kind is Tao2ServeError:
        error.exit_code = result.exit_code
    return error


def _placed(error: BaseException, step: str, course: Course) -> BaseException:
    """Add to an error which step it ended, what stands, and how to go on."""
    if isinstance(error, Tao2ServeError):
        error.step = step if not error.step else f"{step}: {error.step}"
        error.hint = "; ".join(filter(None, (error.hint, f"{GOES_ON}, with other gates or settings too")))
        error.aftermath = error.aftermath or _aftermath(step, course)
        error.details |= {
            "pipeline_task_id": course.task_id,
            "pipeline": [_told(name, course.results.get(name), course.reused) for name in course.request.steps],
        }
    return error


def _aftermath(step: str, course: Course) -> str:
    deployed = course.results.get("deploy")
    if deployed is None:
        return "nothing was deployed"
    version = deployed.document["endpoint"]["version"]
    back = "" if deployed.document["alias"]["after"] == {version: 1.0} else ": tao2serve rollback takes them away"
    return f"nothing was promoted; {in_words(deployed)}{back}"


def _told(step: str, result: StepResult | None, reused: frozenset[str]) -> dict[str, Any]:
    return {
        "step": step,
        "status": "not run" if result is None else "reused" if step in reused else "done",
        "task_id": result.task_id if result else None,
        "detail": in_words(result) if result else "",
    }
