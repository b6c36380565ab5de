"""The command line as a user calls it, and what it could leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    def assert_success(self) -> Outcome:
        assert self.code == 0, f"exit {self.code}\n{self.stdout}\n{self.stderr}"
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """tao2serve and its neighbours in one environment and one working folder."""

    environment: Mapping[str, str]
    folder: Path

    def tao2serve(self, *arguments: str | Path, timeout_s: float = 240) -> Outcome:
        return self._run([sys.executable, "-m", "tao2serve", *map(str, arguments)], timeout_s)

    def clearml_serving(self, *arguments: str) -> Outcome:
        """The stock command line of clearml-serving."""
        return self._run([sys.executable, "-m", "clearml_serving", *arguments], 120)

    def python(self, script: Path, *arguments: str | Path, timeout_s: float = 120) -> Outcome:
        """A script of the user's, in the same environment."""
        return self._run([sys.executable, str(script), *map(str, arguments)], timeout_s)

    def _run(self, command: list[str], timeout_s: float) -> Outcome:
        done = subprocess.run(
            command, env=dict(self.environment), cwd=self.folder, capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Outcome(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def make_command_line(home: Path, folder: Path, **variables: str) -> CommandLine:
    """A command line whose sandbox lives in `home`; ClearML settings of the caller do not reach it."""
    ours = ("CLEARML_", "TAO2SERVE_", "ORT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    folder.mkdir(parents=True, exist_ok=True)
    return CommandLine(environment={**kept, "TAO2SERVE_HOME": str(home), **variables}, folder=folder)


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process, however deep, that runs for this home: its environment names it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TAO2SERVE_HOME") == str(home) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def demo_processes(temporary: Path) -> set[int]:
    """Pids of everything that runs for the sandbox of a demo whose temporary files are there."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("TAO2SERVE_HOME", "").startswith(f"{temporary}/tao2serve-demo-"):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def deserted_memory() -> set[str]:
    """Shared-memory segments of no Triton that runs: each is started with the prefix of its own."""
    commands = []
    for process in psutil.process_iter():
        try:
            commands.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    segments = shared_memory()
    return {name for name in segments if not any(name[: len("tao2serve_12345678_")] in text for text in commands)}


def shared_memory(prefix: str = "tao2serve_") -> set[str]:
    """Shared-memory segments whose name begins so."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(prefix)}
