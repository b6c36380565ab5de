"""A sandbox to break: its processes stopped and killed, its disk filled, its files damaged."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import CommandLine, Outcome, make_command_line, processes_of
from killed_runs import start

MOUNT = shutil.which("mount")
ROOMY, TIGHT_BYTES = "256m", 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A sandbox of its own; its server's data lie on a disk that can be made small, where that may be mounted."""

    commands: CommandLine
    home: Path
    mounted: bool

    def pid(self, name: str) -> int:
        state = json.loads((self.home / "sandbox" / "state.json").read_text())
        return next(int(entry["pid"]) for entry in state["processes"] if entry["name"] == name)

    def port(self, name: str) -> int:
        return int(json.loads((self.home / "sandbox" / "ports.json").read_text())[name])

    @property
    def data(self) -> Path:
        return self.home / "sandbox" / "clearml-server"

    @property
    def repository(self) -> Path:
        return self.home / "sandbox" / "model-repository"

    def with_variables(self, **variables: str) -> CommandLine:
        return CommandLine(environment={**self.commands.environment, **variables}, folder=self.commands.folder)

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def up(self) -> None:
        self.commands.tao2serve("sandbox", "up").assert_success()

    @contextlib.contextmanager
    def hung(self, name: str) -> Iterator[None]:
        """A process that takes connections and never answers."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def server_disk_full(self) -> Iterator[None]:
        """No room for a model on the server's disk: a small tmpfs, or a limit of the process's files without root."""
        if self.mounted:
            used = shutil.disk_usage(self.data).used
            remount(self.data, str(used + TIGHT_BYTES))
            try:
                yield
            finally:
                remount(self.data, ROOMY)
            return
        pid = self.pid("clearml-server")
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (TIGHT_BYTES, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Give a folder a disk of its own of this size; whether that could be done, which takes root."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = (
        MOUNT is not None
        and subprocess.run(
            [MOUNT, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def broken_stack(root: Path, **variables: str) -> Iterator[Stack]:
    """A running sandbox of its own, with these variables for its commands; nothing of it is left."""
    home = root / "home"
    plain = make_command_line(home, root / "work")
    with small_disk(home / "sandbox" / "clearml-server", ROOMY) as mounted:
        try:
            plain.tao2serve("sandbox", "up").assert_success()
            found = plain.tao2serve("sandbox", "env", "--json").assert_success().document
            commands = make_command_line(home, root / "work", **found, **variables)
            yield Stack(commands=commands, home=home, mounted=mounted)
        finally:
            plain.tao2serve("sandbox", "down").assert_success()
            assert not processes_of(home)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """How a command ended that something was done to, and how long after that."""

    outcome: Outcome
    took_s: float


class Breaking:
    """A command that runs until it begins a step."""

    def __init__(self, commands: CommandLine, step: str, *arguments: str | Path) -> None:
        self._process = start(commands, *arguments)
        self.said: list[str] = []
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            if line.split() == ["...", *step.split()]:
                break
        else:
            stdout, _ = self._process.communicate()
            raise AssertionError(f"it ended before {step!r}:\n{''.join(self.said)}{stdout}")
        self._since = time.monotonic()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let it stand still for a while: however fast the machine is, it has not ended meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ended(self, *, limit_s: float) -> Broken:
        """Wait for its end; fails if it takes longer than that."""
        try:
            stdout, stderr = self._process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            stdout, stderr = self._process.communicate()
            raise AssertionError(f"it hangs:\n{''.join(self.said)}{stderr}") from None
        outcome = Outcome(code=self._process.returncode, stdout=stdout, stderr="".join(self.said) + stderr)
        return Broken(outcome=outcome, took_s=time.monotonic() - self._since)


def side_by_side(commands: Sequence[tuple[CommandLine, Sequence[str | Path]]], *, limit_s: float) -> list[Outcome]:
    """Run commands at the same time, and return how each ended; fails if one takes longer than the limit."""
    processes = [start(line, *arguments) for line, arguments in commands]
    deadline = time.monotonic() + limit_s
    ended = []
    try:
        for process in processes:
            stdout, stderr = process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
            ended.append(Outcome(code=process.returncode, stdout=stdout, stderr=stderr))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return ended
