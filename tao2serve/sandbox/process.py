"""Background processes that outlive the command which starts them, and end by their recorded identity."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tao2serve.errors import ToolError
from tao2serve.identity import process_identity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A started process; `identity` tells it from a later one with the same pid, clock changes or not."""

    name: str
    pid: int
    identity: str


def start(name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> ProcessRecord:
    """Start a process in a session of its own, its output appended to `log`.

    Raises ToolError if it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                # Ctrl-C in the terminal must reach only the command, which then ends these in order.
                start_new_session=True,
            )
        record = ProcessRecord(name=name, pid=process.pid, identity=process_identity(process.pid))
        # The record, not this object, follows the process from here; unmarked, its finaliser would warn.
        process.returncode = 0
        return record
    except (OSError, psutil.NoSuchProcess) as error:
        raise ToolError(name, "could not be started", evidence=str(error), log=log) from error


def is_alive(record: ProcessRecord) -> bool:
    """Whether this very process still runs."""
    return _process(record) is not None


def stop(record: ProcessRecord, *, grace_s: float) -> None:
    """End a process and its descendants: SIGTERM, after the grace period SIGKILL; returns when all are gone.

    Only this process and what it started are touched; of one that was killed, what it left in its session.
    """
    process = _process(record)
    family = _session(record)
    if process is not None:
        family += [process, *_children(process)]
        _signal([process], signal.SIGTERM)
        _wait([process], grace_s)
    _signal(family, signal.SIGKILL)
    _wait(family, 5.0)
    _reap(record.pid)


def tail(log: Path, *, lines: int = 12) -> str:
    """Return the last lines of a log, empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - 16_384, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _process(record: ProcessRecord) -> psutil.Process | None:
    _reap(record.pid)
    try:
        process = psutil.Process(record.pid)
        same = process_identity(record.pid) == record.identity
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OSError):
        return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _session(record: ProcessRecord) -> list[psutil.Process]:
    """Return what runs in the session that `start` made: a killed Triton may leave interpreters of its models there.

    No pid is given anew while a session has its number, so what is found was started by this process; one that got
    its pid after all had ended tells itself by its identity.
    """
    with contextlib.suppress(OSError):
        if process_identity(record.pid) != record.identity:
            return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != record.pid and os.getsid(process.pid) == record.pid:
                found.append(process)
    return found


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _wait(processes: Sequence[psutil.Process], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and any(_runs(process) for process in processes):
        for process in processes:
            _reap(process.pid)
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reap(pid: int) -> None:
    """Collect the exit status if the process is our own child, so that no zombie is left."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)
