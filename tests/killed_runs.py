"""Runs of tao2serve that are killed without a warning, and requests that go on meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from command_line import CommandLine, Outcome


def start(command_line: CommandLine, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tao2serve", *map(str, arguments)], env=dict(command_line.environment),
        cwd=command_line.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill_in_step(command_line: CommandLine, step: str, *arguments: str | Path, after_s: float = 0.0) -> list[str]:
    """Run a command and SIGKILL its whole group `after_s` after a step of this name began; return what it had said.

    The last line is the step it was killed in. Fails if it ended before.
    """
    process = start(command_line, *arguments)
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line.strip())
        if line.split() == ["...", *step.split()]:
            time.sleep(after_s)
            break
    else:
        raise AssertionError(f"it ended before {step!r}:\n" + "\n".join(said))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    return said


def interrupt_in_step(
    command_line: CommandLine, step: str, *arguments: str | Path, number: signal.Signals = signal.SIGINT
) -> Outcome:
    """Run a command, signal it once a step of this name begins, and return how it ended; fails if it ended before."""
    process = start(command_line, *arguments)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.split() == ["...", *step.split()]:
            os.kill(process.pid, number)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert said[-1].split() == ["...", *step.split()], f"it ended before {step!r}:\n{''.join(said)}{stdout}"
    return Outcome(code=process.returncode, stdout=stdout, stderr="".join(said) + stderr)


class Asked:
    """Answers to requests that are posted all the time: how many, by version, and those that were none."""

    def __init__(self) -> None:
        self.by_version: dict[str, int] = {}
        self.failures: list[str] = []


@contextlib.contextmanager
def asked_meanwhile(url: str, picture: Path, *, pause_s: float = 0.05) -> Iterator[Asked]:
    """Post a picture again and again while the block runs."""
    asked, ended, body = Asked(), threading.Event(), picture.read_bytes()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not ended.wait(pause_s):
                try:
                    answer = client.post(url, content=body, headers={"Content-Type": "image/jpeg"})
                    answer.raise_for_status()
                    version = answer.json()["model"]["version"]
                    asked.by_version[version] = asked.by_version.get(version, 0) + 1
                except httpx.HTTPError as error:
                    asked.failures.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        ended.set()
        thread.join()
