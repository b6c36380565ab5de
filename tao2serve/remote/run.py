"""Run a command on a queue: the order of things, and what Ctrl-C does to it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tao2serve.errors import NotReadyError, ServiceError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.calls import call
from tao2serve.registry.download import download
from tao2serve.registry.session import translated
from tao2serve.remote.bring import bring_back
from tao2serve.remote.bundle import STORE
from tao2serve.remote.errors import error_of
from tao2serve.remote.follow import PAUSE_S, Console, RunState, look, wait_until
from tao2serve.remote.protocol import RESULT
from tao2serve.remote.queues import Queue, find_queue, queues_in_words, unserved
from tao2serve.remote.request import as_here
from tao2serve.remote.submit import Submission, submit
from tao2serve.steps import Step, Steps, tell_aftermath

__all__ = ["RanOn", "RemoteResult", "run_on_queue"]

INTERRUPTED: Final = 130
STOP_LIMIT_S: Final = 90.0  # what a deployment needs to take back what it began, and its agent to notice
LOOK_AT_QUEUES_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOn:
    """Where a command ran."""

    worker: str
    task_id: str
    queue: str

    def to_dict(self) -> dict[str, str]:
        """Return the `ran_on` member of the JSON document."""
        return {"worker": self.worker, "task_id": self.task_id, "queue": self.queue}

    def __str__(self) -> str:
        return f"worker {self.worker}, queue {self.queue}, ClearML task {self.task_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteResult:
    """What a command printed on stdout there, with the paths of here, and its exit code."""

    exit_code: int
    stdout: str
    ran_on: RanOn


def run_on_queue(
    submission: Submission,
    *,
    queue: str,
    wait_s: float,
    wait_for_worker: bool,
    steps: Steps,
    on_line: Callable[[str], None],
) -> RemoteResult:
    """Run a command as a ClearML task on a queue, and bring back what it leaves; a failure there is raised here.

    `wait_s` is how long a worker may take to take it; with `wait_for_worker` also one that is not there yet. `on_line`
    is told each line the command writes to stderr. Interrupted, the task is stopped before this returns. Raises
    ServiceError for a queue that is not there or served by nobody, NotReadyError if no worker takes it in time, and
    whatever the command itself ended with, with `ran_on` in its details.
    """
    with steps.step("find the queue") as step:
        found = find_queue(queue)
        if not found.workers and not wait_for_worker:
            raise unserved(found)
        step.note(str(found))
    with steps.step("send it to ClearML") as step:
        task_id = submit(submission, on_news=step.news)
        step.note(f"ClearML task {task_id}")
    ran_on = RanOn(worker="", task_id=task_id, queue=found.name)
    try:
        ran_on = _wait_and_watch(submission, found, ran_on, wait_s, steps, on_line)
        with steps.step("bring back the result") as step:
            document = _brought_back(submission, ran_on, step)
        return _result(submission, ran_on, document)
    except KeyboardInterrupt as interrupt:
        with deferred_interrupts():
            tell_aftermath(interrupt, _stop(ran_on))
        raise
    except BaseException as error:
        details = getattr(error, "details", None)
        if isinstance(details, dict):
            details.setdefault("ran_on", _placed(ran_on).to_dict())
        raise


def _placed(ran_on: RanOn) -> RanOn:
    """Add the worker, if one has taken the task by now."""
    with contextlib.suppress(Exception):  # an error is told already
        return replace(ran_on, worker=ran_on.worker or look(ran_on.task_id).worker)
    return ran_on


def _wait_and_watch(
    submission: Submission, queue: Queue, ran_on: RanOn, wait_s: float, steps: Steps, on_line: Callable[[str], None]
) -> RanOn:
    task_id, paths = ran_on.task_id, submission.command.paths
    with steps.step("wait for a worker") as step:
        with translated(f"ClearML task {task_id}", f"could not be put into queue {queue.name}"):
            call("tasks", "enqueue", task=task_id, queue=queue.id)
        state = _taken(task_id, queue, wait_s, step)
        ran_on = RanOn(worker=state.worker, task_id=task_id, queue=queue.name)
        step.note(state.worker or "taken")

    def show(line: str) -> None:
        on_line(str(as_here(line, paths)))

    with steps.step(f"run {submission.command.command} there") as step:
        console = Console(task_id, on_line=show, on_agent=step.news)
        while True:
            with translated(f"ClearML task {task_id}", "could not be read"):
                state = look(task_id)
                console.read()
            if state.worker and not ran_on.worker:
                ran_on = RanOn(worker=state.worker, task_id=task_id, queue=queue.name)
            if state.is_over:
                break
            time.sleep(PAUSE_S)
        if not state.result:
            raise _ended_without_result(task_id, state, console)
        step.note(f"on {ran_on.worker}")
    return ran_on


def _taken(task_id: str, queue: Queue, wait_s: float, step: Step) -> RunState:
    """Return the state once a worker has taken the task; else it is taken out of the queue again."""
    begun = time.monotonic()
    looked = begun
    while True:
        with translated(f"ClearML task {task_id}", "could not be read"):
            state = look(task_id)
        if state.status != "queued":
            return state
        now = time.monotonic()
        if now - begun > wait_s:
            break
        if now - looked > LOOK_AT_QUEUES_S:
            looked, queue = now, find_queue(queue.id)
            step.news(str(queue))
        time.sleep(PAUSE_S)
    taken = _dequeue(task_id)
    if taken is not None:
        return taken
    queue = find_queue(queue.id)
    if not queue.workers:
        raise unserved(queue)
    raise NotReadyError(
        f"queue {queue.name!r}",
        f"had no worker free for {wait_s:g} s",
        evidence=queues_in_words([queue]),
        hint="wait longer: --queue-wait 1h; or start another agent on it",
    )


def _dequeue(task_id: str) -> RunState | None:
    """Take it out of its queue; returns its state instead if it is not in there any more, as a worker took it."""
    with translated(f"ClearML task {task_id}", "could not be taken out of its queue"):
        try:
            call("tasks", "dequeue", task=task_id)
        except ServiceError:
            state = look(task_id)
            if state.status in ("queued", "created"):
                raise
            return state
        call("tasks", "stopped", task=task_id, status_reason="no worker took it in time", force=True)
    return None


def _ended_without_result(task_id: str, state: RunState, console: Console) -> ServiceError:
    was_stopped = state.status == "stopped"
    return ServiceError(
        f"ClearML task {task_id}",
        "was stopped by somebody else" if was_stopped else f"ended before the command did: {state.status}",
        evidence="\n".join([*([state.message] if state.message else []), *console.last]),
        hint="run it again"
        if was_stopped
        else "mend what its console says; the worker must have a Python from 3.11 to 3.13 or reach a package index",
    )


def _brought_back(submission: Submission, ran_on: RanOn, step: Step) -> Mapping[str, Any]:
    """Write the outputs to where they belong, and return what the worker says of the run."""
    with translated(f"ClearML task {ran_on.task_id}", "could not be read"):
        state = look(ran_on.task_id)
    document = _document(ran_on.task_id, state, step)
    written = bring_back(submission.command, state.artifacts, document.get("outputs") or {}, step)
    step.note(f"exit code {document['exit_code']}, {len(written)} files")
    return document


def _result(submission: Submission, ran_on: RanOn, document: Mapping[str, Any]) -> RemoteResult:
    command, error = submission.command, document.get("error")
    if error and error.get("exit_code") == INTERRUPTED:
        raise _stopped_by_another(ran_on, str(error.get("aftermath") or ""))
    if error:
        raise error_of(as_here(error, command.paths), ran_on=ran_on.to_dict())
    stdout, code = str(as_here(str(document.get("stdout") or ""), command.paths)), int(document["exit_code"])
    if code > 128 and not stdout.strip():
        killed = ServiceError(
            f"ClearML task {ran_on.task_id}", f"had its command ended by signal {code - 128}",
            hint="its worker may have too little memory: see the console, and the worker's own log",
        )  # fmt: skip
        killed.exit_code = code
        raise killed
    return RemoteResult(exit_code=code, stdout=stdout, ran_on=ran_on)


def _stopped_by_another(ran_on: RanOn, aftermath: str) -> ServiceError:
    error = ServiceError(f"ClearML task {ran_on.task_id}", "was stopped by somebody else", hint="run it again")
    error.aftermath = aftermath
    return error


def _document(task_id: str, state: RunState, step: Step) -> Mapping[str, Any]:
    artifact = state.artifacts[RESULT]
    path = download(
        state.result, subject=f"result of ClearML task {task_id}", store=STORE, sha256=str(artifact.get("hash") or ""),
        on_news=step.news,
    )  # fmt: skip
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ServiceError(f"result of ClearML task {task_id}", "is no JSON", evidence=str(error)) from error
    if not isinstance(document, dict) or "exit_code" not in document:
        raise ServiceError(f"result of ClearML task {task_id}", "is not that of a command")
    return document


def _stop(ran_on: RanOn) -> str:
    """Stop the task, wait for what it undoes, and say what became of it; never raises."""
    task_id = ran_on.task_id
    named = f"ClearML task {task_id}" + (f" on {ran_on.worker}" if ran_on.worker else "")
    try:
        call("tasks", "stop", task=task_id, status_reason="interrupted where it was begun", force=True)
        over = wait_until(lambda: look(task_id).is_over, limit_s=STOP_LIMIT_S)
        state = look(task_id)
        said = _last_words(task_id, state)
    except Exception as error:  # the interrupt is what the user must see
        return f"{named} could not be stopped: {' '.join(str(error).split())[:200]}"
    if not over:
        return f"{named} was told to stop, and has not ended after {STOP_LIMIT_S:g} s"
    return f"{named} is stopped" + (f"; there: {said}" if said else "")


def _last_words(task_id: str, state: RunState) -> str:
    """Return what the command itself said it leaves behind."""
    if not state.result:
        return ""
    silent = Step(name="", watch=lambda _: None)
    error = _document(task_id, state, silent).get("error") or {}
    return str(error.get("aftermath") or "")
