"""`watch`: ClearML's own trigger scheduler, which starts a pipeline for every model that gets a tag."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from tao2serve.config import Settings, home
from tao2serve.errors import InputError, ServiceError, Tao2ServeError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.pipeline.controller import STOP_LIMIT_S as PIPELINE_LIMIT_S
from tao2serve.pipeline.known import TAG, Known, KnownModel, State, read_known
from tao2serve.pipeline.main_task import make_main_task
from tao2serve.registry.calls import call, get_by_ids, tags_of
from tao2serve.registry.session import clearml, translated
from tao2serve.registry.trained import Selectors, find_trained_model, find_trained_models
from tao2serve.remote.job import HIDDEN
from tao2serve.steps import tell_aftermath
from tao2serve.values import TrainedModel

__all__ = ["WatchRequest", "run_watch"]

log = logging.getLogger(__name__)

OVER: Final = ("completed", "published")  # a run that is tagged while it trains is taken once it has ended
BEGINNING: Final = datetime(1970, 1, 2, tzinfo=UTC)
STOP_LIMIT_S: Final = PIPELINE_LIMIT_S + 30.0  # what the pipeline takes to end its step, and to say so
LAST_LINES_S: Final = 5.0
News = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """Which models, and the words of `tao2serve pipeline` that follow a model's id."""

    project: str
    tags: Sequence[str]
    endpoint: str
    words: Sequence[str]
    every_s: float
    once: bool = False
    all: bool = False  # those too that have the tag when the first watch begins

    @property
    def name(self) -> str:
        """The name of its ClearML task, by which the next one finds it."""
        return f"watch {self.project} for {', '.join(sorted(self.tags))}: {self.endpoint}"


class _LookedError(BaseException):
    """Ends the scheduler's loop, which catches every Exception."""


def run_watch(request: WatchRequest, settings: Settings, *, on_news: News) -> tuple[KnownModel, ...]:
    """Watch until interrupted, or look once; return what became of the models that this watch has started.

    Each model is started once, also by the watches that follow; what came while none ran is caught up. One that had not
    ended when its watch did goes on. Raises InputError for a project that is not there, ServiceError if another watch
    of the same runs on this machine, and at the end of one look the first error for which something has to be looked
    at again.
    """
    clearml()
    there = find_trained_models(Selectors(project=request.project, tags=tuple(request.tags)))
    with _alone(request) as lock, _main_task(request, settings) as task:
        before = read_known(request.name, other_than=str(task.id))
        known = Known(task, before or {})
        if before is None and not request.all:
            known.note(*(KnownModel(model_id=m.model_id, name=m.name, state="there before") for m in there))
            for model in known.all:
                on_news(f"{model.name} ({model.model_id}) has the tag already; --all starts it too")
        else:
            known.note()
        work = _Work(request, known, str(task.id), lock, on_news)
        for model in known.unended:
            on_news(f"{model.name} ({model.model_id}) goes on: its pipeline had not ended")
            work.waiting.put(model)
        on_news(f"watching project {request.project} for {', '.join(request.tags)}, ClearML task {task.id}")
        try:
            _look(request, work)
        except KeyboardInterrupt as interrupt:
            with deferred_interrupts():
                work.stop()
            tell_aftermath(
                interrupt, "the same command goes on with what was begun, and catches up what comes meanwhile"
            )
            raise
    if work.error is not None:
        tell_aftermath(work.error, "the same command looks at it again, and starts nothing twice")
        raise work.error
    return work.ended


def _look(request: WatchRequest, work: _Work) -> None:
    scheduler = _scheduler(request, work)
    if not request.once:
        work.begin(work.go_on)
        scheduler.start()
        return
    try:
        scheduler.start()
    except _LookedError:
        work.begin(work.do_all)
        work.finish()


def _scheduler(request: WatchRequest, work: _Work) -> Any:
    """Build the trigger scheduler: models by their own tags, and runs that have ended by theirs.

    ClearML finds what has one of several tags, and tells of each id once; so that an id that lacked a tag is told of
    again when it changes, what was told is forgotten after each look.
    """
    from clearml.automation import TriggerScheduler

    class Scheduler(TriggerScheduler):  # type: ignore[misc]
        """ClearML's scheduler, but for an end after one look where that is asked for."""

        def _launch_job_function(self, job: Any, func_args: Any = None) -> Any:
            thread = super()._launch_job_function(job, func_args)
            if thread is not None and request.once:
                thread.join()
            return thread

        def _step(self) -> bool:
            work.look_again()
            executed = bool(super()._step())
            for trigger in self.get_triggers():
                trigger._triggered_instances = None
            if request.once:
                raise _LookedError
            return executed

    scheduler = Scheduler(pooling_frequency_minutes=request.every_s / 60)
    options = {
        "trigger_project": request.project,
        "trigger_on_tags": list(request.tags),
        "schedule_function": work.found,
    }
    scheduler.add_model_trigger(name="models", **options)
    scheduler.add_task_trigger(name="runs", trigger_on_status=list(OVER), **options)
    for trigger in scheduler.get_triggers():
        trigger.last_update = BEGINNING  # what is known is not started again, so nothing is missed by any clock
        trigger.get_ref_time = _changed
    return scheduler


def _changed(found: Any) -> datetime:
    """Return when an object was changed last; clearml 2.1.12's own compares a date of models with 0, and fails."""
    dates = (getattr(found, name, None) for name in ("last_update", "last_change"))
    return max((date for date in dates if date), default=BEGINNING)


class _Work:
    """Pipelines one after another: two at once would be in each other's way on the endpoint."""

    def __init__(self, request: WatchRequest, known: Known, task_id: str, lock: IO[str], on_news: News) -> None:
        self._request, self._known, self._task_id, self._lock, self._news = request, known, task_id, lock, on_news
        self.waiting: queue.Queue[KnownModel] = queue.Queue()
        self._ended: dict[str, KnownModel] = {}
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._over = threading.Event()  # no thread works
        self._over.set()
        self._failure: BaseException | None = None  # that of the thread
        self._again: queue.SimpleQueue[str | KnownModel] = queue.SimpleQueue()
        self.error: Tao2ServeError | None = None  # the first one that left something to be looked at again

    @property
    def ended(self) -> tuple[KnownModel, ...]:
        return tuple(self._ended.values())

    def found(self, identifier: str) -> None:
        """Called by the scheduler with the id of a model, or of a run, whose best model is meant."""
        if identifier in self._known:
            return
        try:
            self._take(identifier)
        except Tao2ServeError as error:  # the scheduler would not tell of it again before it changes
            self._keep(identifier, identifier, error)

    def _keep(self, name: str, one: str | KnownModel, error: Tao2ServeError) -> None:
        self.error = self.error or error
        self._again.put(one)
        when = "by the next watch" if self._request.once else "at the next look"
        self._news(f"{name} could not be taken, and is taken up again {when}: {error}")

    def look_again(self) -> None:
        """Take up what an error kept from being taken."""
        for _ in range(self._again.qsize()):
            one = self._again.get()
            if isinstance(one, str):
                self.found(one)
            elif one.state == "waiting":
                self.waiting.put(one)
            else:
                self._note_ended(one)

    def _take(self, identifier: str) -> None:
        try:
            model = find_trained_model(identifier).model
        except InputError as error:
            if self._known.add(KnownModel(model_id=identifier, name="", state="passed over", detail=str(error))):
                self._news(f"passed over {identifier}: {error}")
            return
        if not self._has_all_tags(identifier, model):
            return
        found = KnownModel(model_id=model.model_id, name=model.name, state="waiting")
        if self._known.add(found):
            self._news(f"new: {model.name} ({model.model_id})")
            self.waiting.put(found)

    def _has_all_tags(self, identifier: str, model: TrainedModel) -> bool:
        """Say whether a model, its run or the model that it was uploaded for has every tag."""
        tags, wanted = {*model.tags, *model.task_tags}, {*self._request.tags}
        if not tags >= wanted and identifier == model.registered_model_id:
            with translated("ClearML", "did not tell the tags of a model"):
                rows = get_by_ids("models", [identifier], fields=["tags"])
            tags |= {tag for row in rows.values() for tag in tags_of(row)}
        return tags >= wanted

    def begin(self, work: Callable[[], None]) -> None:
        """Let a thread work: an interrupt ends the main thread alone, and a pipeline that undoes can still write."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # finish() raises it
                self._failure = error
            finally:
                self._over.set()

        self._over.clear()
        threading.Thread(target=run, name="tao2serve watch", daemon=True).start()

    def finish(self) -> None:
        """Wait until the thread is done; raises what ended it."""
        self._over.wait()
        if self._failure is not None:
            raise self._failure

    def do_all(self) -> None:
        """Run what waits, in turn."""
        while not self.waiting.empty():
            self._run(self.waiting.get())

    def go_on(self) -> None:
        """Run what comes, in turn, until stopped."""
        while not self._stopped.is_set():
            try:
                model = self.waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                self._run(model)
            except Exception as error:  # the watch goes on with the others
                log.exception("the pipeline of %s", model)
                self._news(f"{model.name} ({model.model_id}) is left to the next watch: {error}")

    def stop(self) -> None:
        """End the pipeline that runs, as Ctrl-C does; it is noted as not ended."""
        self._stopped.set()
        with self._starting:
            process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT_S)
        self._over.wait(LAST_LINES_S)

    def _run(self, model: KnownModel) -> None:
        if self._stopped.is_set():
            return
        try:
            self._known.note(replace(model, state="running"))
        except Tao2ServeError as error:
            self._keep(f"{model.name} ({model.model_id})", replace(model, state="waiting"), error)
            return
        self._news(f"started the pipeline of {model.name} ({model.model_id})")
        command = [sys.executable, "-m", "tao2serve", "pipeline", *self._request.words, "--watched-by", self._task_id,
                   "--", model.model_id]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        last = ""
        with self._starting:
            if self._stopped.is_set():
                return
            process = self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", start_new_session=True, pass_fds=[self._lock.fileno()],
            )  # fmt: skip
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                last = line.strip() if line.startswith("error:") else last
                self._news(f"  {line.rstrip()}")
            code = process.wait()
        if self._stopped.is_set():
            return
        code = code if code >= 0 else 128 - code  # as a shell gives a signal
        state: State = "failed" if code else "done"
        ended = replace(model, state=state, exit_code=code, detail=f"exit {code}: {last}".strip(": ") if code else "")
        self._ended[model.model_id] = ended
        self._note_ended(ended)
        self._news(f"{ended.state}: {model.name} ({model.model_id}) {ended.detail}".rstrip())

    def _note_ended(self, ended: KnownModel) -> None:
        try:
            self._known.note(ended)
        except Tao2ServeError as error:
            self.error = self.error or error
            self._again.put(ended)
            self._news(f"what became of {ended.name} ({ended.model_id}) could not be noted: {error}")


@contextlib.contextmanager
def _alone(request: WatchRequest) -> Iterator[IO[str]]:
    """Let one watch of the same run on this machine; a pipeline that outlives its watch counts as it."""
    folder = home() / "watch"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(request.name.encode()).hexdigest()[:16]}.lock"
    with Path(path).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError(
                f"project {request.project!r}", "is watched already for the same, or a pipeline of that still runs",
                evidence=str(path), hint="wait for it to end, or stop it",
            ) from error  # fmt: skip
        yield lock


@contextlib.contextmanager
def _main_task(request: WatchRequest, settings: Settings) -> Iterator[Any]:
    """The scheduler's task, a service; nothing of this process is captured."""
    with translated("ClearML", "did not make the task of the watch"):
        task = make_main_task(settings.artifact_project, request.name, kind="service", tags=[TAG])
    try:
        yield task
    except BaseException:
        with deferred_interrupts(), contextlib.suppress(Exception):
            task.flush(wait_for_uploads=True)
            call("tasks", "stopped", task=str(task.id), status_reason="interrupted", force=True)
        raise
    with contextlib.suppress(Exception):
        task.close()
