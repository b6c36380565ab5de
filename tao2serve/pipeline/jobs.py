"""The two ways a step runs: by this machine, or by an agent; both are jobs of ClearML's own pipeline controller."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.registry.calls import call
from tao2serve.registry.session import clearml
from tao2serve.remote.bootstrap import CONFIGURATION
from tao2serve.remote.follow import FINAL, Console, look, wait_until
from tao2serve.remote.job import ABORT_LIMIT_S, Job
from tao2serve.remote.request import WORK

__all__ = ["NO_WORKER", "STOP_LIMIT_S", "OnLine", "local_job", "queue_job"]

log = logging.getLogger(__name__)

OnLine = Callable[[str, str], None]  # told the step's name and a line of its command
NO_WORKER: Final = "no worker took it in time"
STOP_LIMIT_S: Final = ABORT_LIMIT_S + 30.0  # what the command needs, and its agent to notice and to send the result
READ_EVERY_S: Final = 1.0


@cache
def local_job(on_line: OnLine) -> type[Any]:
    """Return the kind of job that runs a step's command in a process of this machine, for the step's own task."""
    clearml()
    from clearml.automation.job import LocalClearmlJob

    class LocalJob(LocalClearmlJob):  # type: ignore[misc]
        """ClearML's local job, but for launching: the task's script would only start what is installed here anyway."""

        _runner: threading.Thread | None = None  # None until it is launched
        _asked_to_stop = False

        def launch(self, queue_name: str | None = None) -> bool:
            self.task.mark_started()
            description = json.loads(self.task.get_configuration_object(CONFIGURATION))
            self._job = Job(self.task, description, on_line=lambda line: on_line(str(self.task.name), line))
            self._runner = threading.Thread(target=self._run, name=f"tao2serve step {self.task.name}", daemon=True)
            self._runner.start()
            return True

        def is_stopped(self, aborted_nonresponsive_as_running: bool = False) -> bool:
            """Return whether the command has ended, whatever its task says; one stopped in ClearML is interrupted."""
            if self._runner is None:
                return bool(super().is_stopped())
            if not self._runner.is_alive():
                # The SDK keeps what it was told for a second, and takes what has ended and is not failed for well.
                if self.status(force=True) not in FINAL:
                    with contextlib.suppress(Exception):
                        self.task.mark_failed(status_reason="ended without a word", force=True)
                    self.status(force=True)
                return True
            if self.status() == "stopped":
                self._ask_to_stop()
            return False

        def abort(self) -> None:
            if self._runner is not None and self._runner.is_alive():
                self._ask_to_stop()
                self._runner.join(STOP_LIMIT_S)

        def _ask_to_stop(self) -> None:
            if not self._asked_to_stop:  # a second interrupt could cut short what it undoes
                self._asked_to_stop = True
                threading.Thread(target=self._job.abort, name=f"tao2serve stop {self.task.name}", daemon=True).start()

        def _run(self) -> None:
            try:
                with tempfile.TemporaryDirectory(prefix=WORK) as folder:
                    code = self._job.run(Path(folder).resolve())
                self._mark(code)
            except Exception as error:
                log.exception("step %s", self.task.name)
                with contextlib.suppress(Exception):
                    self.task.mark_failed(status_message=str(error)[:1000], force=True)

        def _mark(self, code: int) -> None:
            """Say in ClearML how it ended, unless that is said: a task somebody stopped is not completed."""
            if look(str(self.task.id)).status in ("failed", "stopped"):
                return
            if self._asked_to_stop:
                self.task.mark_stopped(force=True, status_message="interrupted")
            elif code == 0:
                self.task.mark_completed(ignore_errors=False, force=True)
            else:
                self.task.mark_failed(ignore_errors=False, status_reason=f"exit code {code}", force=True)

    return LocalJob


@cache
def queue_job(on_line: OnLine, wait_s: float) -> type[Any]:
    """Return the kind of job that an agent runs, whose console is read on while it is waited for.

    One that no worker takes within `wait_s` is taken out of the queue again, and stopped with NO_WORKER.
    """
    clearml()
    from clearml.automation.job import ClearmlJob

    class QueueJob(ClearmlJob):  # type: ignore[misc]
        """ClearML's job, but for ending it: the command there takes back what it has begun."""

        _read_at = 0.0
        _console: Console | None = None

        def launch(self, queue_name: str | None = None) -> bool:
            name = str(self.task.name)
            self._deadline = time.monotonic() + wait_s
            self._console = Console(
                str(self.task.id), on_line=lambda line: on_line(name, line), on_agent=lambda line: on_line(name, line)
            )
            return bool(super().launch(queue_name))

        def status(self, force: bool = False) -> str:
            said = str(super().status(force))
            if self._console is not None and time.monotonic() - self._read_at > READ_EVERY_S:
                self._read_at = time.monotonic()
                with contextlib.suppress(Exception):  # the next look may succeed
                    self._console.read()
                if said in ("queued", "created") and time.monotonic() > self._deadline:
                    with contextlib.suppress(Exception):
                        self._take_back(NO_WORKER)
            return said

        def is_stopped(self, aborted_nonresponsive_as_running: bool = False) -> bool:
            """Return whether it has ended; one whose worker died has, since nobody brings it back here."""
            return bool(super().is_stopped())

        def abort(self) -> None:
            task_id = str(self.task.id)
            if look(task_id).status == "queued" and self._take_back("interrupted"):
                return
            call("tasks", "stop", task=task_id, status_reason="interrupted where it was begun", force=True)
            wait_until(lambda: look(task_id).is_over, limit_s=STOP_LIMIT_S)

        def _take_back(self, reason: str) -> bool:
            """Take it out of the queue and mark it as stopped; False if a worker has taken it just then."""
            task_id = str(self.task.id)
            try:
                call("tasks", "dequeue", task=task_id)
            except ServiceError:
                if look(task_id).status != "created":  # which it is after an earlier try that came no further
                    return False
            call("tasks", "stopped", task=task_id, status_reason=reason, force=True)
            return True

    return QueueJob
