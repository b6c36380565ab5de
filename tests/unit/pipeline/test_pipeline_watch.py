"""Which models a watch starts, and what becomes of them when ClearML or a signal is in the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import clearml.automation
import pytest

from tao2serve.config import Settings
from tao2serve.errors import ServiceError
from tao2serve.pipeline import watch
from tao2serve.pipeline.known import Known


class Task:
    """A ClearML task that takes no note while `away`."""

    id = "watch"
    away = False

    def set_configuration_object(self, **_: Any) -> None:
        if self.away:
            raise ServiceError("ClearML", "is away")


class Scheduler:
    """The SDK's: it tells of an id once, as long as it remembers."""

    looks: Iterator[list[str]] = iter(())

    def __init__(self, **_: Any) -> None:
        self._triggers: list[SimpleNamespace] = []

    def add_model_trigger(self, *, schedule_function: Callable[[str], None], **_: Any) -> None:
        self._triggers.append(SimpleNamespace(_triggered_instances=None, call=schedule_function))

    def add_task_trigger(self, **_: Any) -> None:
        pass

    def get_triggers(self) -> list[SimpleNamespace]:
        return self._triggers

    def _step(self) -> bool:
        (trigger,) = self._triggers
        trigger._triggered_instances = trigger._triggered_instances or {}
        for identifier in next(self.looks, []):
            if identifier not in trigger._triggered_instances:
                trigger._triggered_instances[identifier] = 1
                trigger.call(identifier)
        return True


class Watched:
    """A watch with made-up models: their tags, those of their run, and of what they were uploaded for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lock: Any, *, once: bool = False) -> None:
        self.tags: dict[str, tuple[list[str], list[str]]] = {}
        self.copied: dict[str, tuple[str, list[str]]] = {}
        self.task, self.news, self.away = Task(), list[str](), False
        self.request = watch.WatchRequest(
            project="p", tags=("ready", "night"), endpoint="street", words=(), every_s=1, once=once
        )
        self.work = watch._Work(self.request, Known(self.task, {}), "watch", lock, self.news.append)
        monkeypatch.setattr(watch, "find_trained_model", self._find)
        monkeypatch.setattr(watch, "get_by_ids", lambda _, ids, **__: {i: {"tags": self.copied[i][1]} for i in ids})
        monkeypatch.setattr(clearml.automation, "TriggerScheduler", Scheduler)
        self.scheduler = watch._scheduler(self.request, self.work)

    def _find(self, identifier: str) -> Any:
        if self.away:
            raise ServiceError("ClearML", "is away")
        model_id = self.copied[identifier][0] if identifier in self.copied else identifier
        own, of_run = self.tags[model_id]
        original = identifier if identifier in self.copied else ""
        model = SimpleNamespace(
            model_id=model_id, name=model_id, tags=own, task_tags=of_run, registered_model_id=original
        )
        return SimpleNamespace(model=model)

    def look(self, *told: str) -> list[str]:
        """What is new after a look at which the scheduler was told these ids."""
        Scheduler.looks = iter([list(told)])
        self.scheduler._step()
        return [self.work.waiting.get().model_id for _ in range(self.work.waiting.qsize())]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "lock").open("a") as file:
        yield file


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, lock: Any) -> Watched:
    return Watched(monkeypatch, lock)


def test_a_model_waits_until_it_has_every_tag_and_is_started_once(watched: Watched) -> None:
    """On the model or its run; the scheduler tells of it again when it changes."""
    watched.tags["m"] = (["ready"], [])
    assert watched.look("m") == []
    watched.tags["m"] = (["ready"], ["night"])
    assert watched.look("m") == ["m"]
    assert watched.look("m") == []


def test_tags_of_what_a_model_was_uploaded_for_count(watched: Watched) -> None:
    """The tags are on the model with the path, the file is at its copy."""
    watched.tags["copy"] = ([], [])
    watched.copied["path"] = ("copy", ["ready"])
    assert watched.look("path") == []
    watched.copied["path"] = ("copy", ["night", "ready"])
    assert watched.look("path") == ["copy"]


@pytest.mark.parametrize("gone", ["server", "note"])
def test_what_could_not_be_taken_is_taken_at_the_next_look(watched: Watched, gone: str) -> None:
    """Although nobody tells of it again."""
    watched.tags["m"] = (["ready", "night"], [])
    watched.away, watched.task.away = gone == "server", gone == "note"
    assert watched.look("m") == []
    assert watched.look() == []
    watched.away = watched.task.away = False
    assert watched.look() == ["m"]
    assert isinstance(watched.work.error, ServiceError)


def _child(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[str]]:
    """Have a Python program in the place of every pipeline."""
    begun: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(_command: list[str], **options: Any) -> subprocess.Popen[str]:
        begun.append(popen([sys.executable, "-c", program], **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return begun


def test_a_pipeline_that_a_signal_killed_has_an_exit_code_of_shells(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 and the signal's number; one whose beginning could not be noted begins after the next look."""
    _child(monkeypatch, f"import os; os.kill(os.getpid(), {signal.SIGKILL:d})")
    watched.tags["m"] = (["ready", "night"], [])
    watched.work.found("m")
    watched.task.away = True
    watched.work.do_all()
    assert not any(watched.work.ended)
    watched.task.away = False
    watched.work.look_again()
    watched.work.do_all()
    assert [one.exit_code for one in watched.work.ended] == [137]


UNDOES = """
import time
print("begun", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    for number in range(3):
        time.sleep(0.1)
        print("undoing", number, flush=True)
    print("undone", flush=True)
"""


@pytest.fixture
def run_once(monkeypatch: pytest.MonkeyPatch, lock: Any, tmp_path: Path) -> Callable[[Watched], Any]:
    """`watch --once`, with a task and a lock that are none."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    monkeypatch.setattr(watch, "clearml", lambda: None)
    monkeypatch.setattr(watch, "find_trained_models", lambda _: ())
    monkeypatch.setattr(watch, "read_known", lambda *_, **__: {})
    monkeypatch.setattr(Scheduler, "start", lambda self: self._step(), raising=False)
    monkeypatch.setattr(Scheduler, "_launch_job_function", lambda self, job, func_args=None: None, raising=False)

    def run(watched: Watched) -> Any:
        monkeypatch.setattr(watch, "_main_task", lambda *_: contextlib.nullcontext(watched.task))
        return watch.run_watch(watched.request, Settings(), on_news=watched.news.append)

    return run


def test_once_hears_out_a_pipeline_that_undoes(
    monkeypatch: pytest.MonkeyPatch, lock: Any, run_once: Callable[[Watched], Any]
) -> None:
    """Ctrl-C goes on to the pipeline, whose output is read to its end."""
    watched = Watched(monkeypatch, lock, once=True)
    watched.tags["m"] = (["ready", "night"], [])
    Scheduler.looks = iter([["m"]])
    begun = _child(monkeypatch, UNDOES)

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while "  begun" not in watched.news and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_once(watched)
    assert watched.news[-1] == "  undone"
    assert [process.returncode for process in begun] == [0]


def test_once_ends_with_the_error_that_left_a_model_out(
    monkeypatch: pytest.MonkeyPatch, lock: Any, run_once: Callable[[Watched], Any]
) -> None:
    """After the work on the others; an error of the work itself is raised too."""
    watched = Watched(monkeypatch, lock, once=True)
    watched.away = True
    Scheduler.looks = iter([["m"]])
    with pytest.raises(ServiceError, match="is away") as raised:
        run_once(watched)
    assert raised.value.aftermath
    watched.work.begin(Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        watched.work.finish()
