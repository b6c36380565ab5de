"""One child process, followed line by line: kept in a log, secrets taken out, ended in time."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tao2serve.errors import ToolError
from tao2serve.interrupts import deferred_interrupts

__all__ = ["ChildOutcome", "ChildRequest", "redact", "run_child"]

REDACTED: Final = "***"
_TAIL_LINES: Final = 200
_LONGEST_LINE: Final = 64 * 1024
# What a shell or a service starts in the background ignores SIGINT, and so would its children.
_HEARS_SIGINT: Final = (
    *(sys.executable, "-I", "-S", "-c"),
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
)
_READ_BYTES: Final = 16 * 1024
_POLL_S: Final = 0.5
_END_GRACE_S: Final = 30.0  # `docker stop` alone takes 10
_LINE_ENDS: Final = re.compile(rb"\r\n|[\r\n]")
_ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequest:
    """A program, by its full path; `secrets` are taken out of all it prints before that is kept or shown."""

    name: str  # what errors call it
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    timeout_s: float
    secrets: tuple[str, ...] = field(default=(), repr=False)
    holds: tuple[int, ...] = ()  # open files that it keeps open, and so their locks, should this process be killed


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOutcome:
    """How a program ended; `lines` are the last it printed, without blank ones and without secrets."""

    code: int
    lines: tuple[str, ...]
    log: Path


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret, also as Python and JSON would quote it."""
    forms = {form for secret in secrets for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, REDACTED)
    return text


def run_child(request: ChildRequest, *, on_line: Callable[[str], None]) -> ChildOutcome:
    """Run a program to its end; its standard input is a terminal that stays silent.

    `docker exec -t`, which NVIDIA's launcher calls, wants a terminal there. The child has a session of its own:
    Ctrl-C reaches only us, and whatever ends the wait ends the child by its id, first by SIGINT, upon which the
    launcher stops its container. Raises ToolError if it cannot be started or does not end in time.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _log(request) as log, _terminal() as terminal, _ended(_start(request, terminal)) as child:
        assert child.stdout is not None
        for line in _lines(child, child.stdout, request):
            log.write(line + "\n")
            if line.strip():
                tail.append(line)
                on_line(line.strip())
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed its output, and yet runs: `_ended` sees to it
            child.wait(timeout=_END_GRACE_S)
    return ChildOutcome(code=child.returncode, lines=tuple(tail), log=request.log)


@contextlib.contextmanager
def _log(request: ChildRequest) -> Iterator[IO[str]]:
    try:
        request.log.parent.mkdir(parents=True, exist_ok=True)
        file = request.log.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise ToolError(str(request.log), "cannot be written, and is to hold the log", evidence=str(error)) from error
    with file:
        yield file


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Yield the child's side of a new terminal into which nobody types."""
    ours, theirs = pty.openpty()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def _start(request: ChildRequest, terminal: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*_HEARS_SIGINT, *request.command],
            env=dict(request.environment),
            cwd=request.folder,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=request.holds,
        )
    except OSError as error:
        raise ToolError(request.name, "could not be started", evidence=str(error)) from error


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leave no child behind, whatever ended the block; a second interrupt waits until it is gone."""
    try:
        yield child
    finally:
        with deferred_interrupts():
            for number in (signal.SIGINT, signal.SIGTERM):
                if child.poll() is None:
                    child.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(timeout=_END_GRACE_S)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # it leads a group of its own
                child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _lines(child: subprocess.Popen[bytes], stream: IO[bytes], request: ChildRequest) -> Iterator[str]:
    """Yield what the child prints, a line at a time, readable and without secrets, until it ends."""
    unread, skipping = b"", False
    for chunk in _chunks(child, stream, request):
        *complete, unread = _LINE_ENDS.split(unread + chunk)
        if complete and skipping:
            complete, skipping = complete[1:], False
        for line in complete:
            yield _readable(line, request.secrets)
        if len(unread) > _LONGEST_LINE:  # no text; dropped as a whole, since half a secret is not recognised
            unread, skipping = b"", True
    if not skipping:
        yield _readable(unread, request.secrets)


def _chunks(child: subprocess.Popen[bytes], stream: IO[bytes], request: ChildRequest) -> Iterator[bytes]:
    deadline_s = time.monotonic() + request.timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline_s:
                fact = f"did not end within {request.timeout_s:g} s and was stopped"
                raise ToolError(request.name, fact, log=request.log)
            if selector.select(_POLL_S):
                chunk = os.read(stream.fileno(), _READ_BYTES)
                if not chunk:
                    return
                yield chunk
            elif child.poll() is not None:  # what it started may hold the stream open for ever
                return


def _readable(line: bytes, secrets: Iterable[str]) -> str:
    return redact(_ESCAPES.sub("", line.decode("utf-8", "replace")), secrets)
