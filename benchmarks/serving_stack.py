"""A sandbox for one benchmark: real Triton and real ClearML Serving, in a temporary home, gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tao2serve.interrupts import ended_by_signals
from tao2serve.sandbox import stack
from tao2serve.sandbox.environment import client_environment
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.state import SandboxState

__all__ = ["SERVERS", "Stack", "cpu_s", "running_stack", "without_tuning"]

# They hold OpenBLAS to kernels and block sizes that suit tests, not measurements.
_TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_DEPLOY_LIMIT_S = 180
SERVERS = ("clearml-serving", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running sandbox, `folder` for what the benchmark itself writes."""

    folder: Path
    state: SandboxState
    environment: Mapping[str, str]

    @property
    def triton(self) -> str:
        return self.state.triton_grpc

    def url(self, endpoint: str) -> str:
        return f"{self.state.serving_url}/{endpoint}"

    def deploy(
        self, *source: str | Path, endpoint: str, image: Path, variables: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Deploy as a user does, by the command, and return its document; `variables` are settings."""
        command = ("deploy", *map(str, source), "--endpoint", endpoint, "--image", str(image), "--json")
        document: dict[str, Any] = json.loads(self.run("-m", "tao2serve", *command, variables=variables))
        return document

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run this Python in the sandbox's environment and return what it prints; ends the benchmark if it fails."""
        done = subprocess.run(
            [sys.executable, *arguments], env={**self.environment, **(variables or {})}, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEPLOY_LIMIT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(
                f"{' '.join(arguments)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout

    def copy_triton_model(self, name: str, copy: str) -> None:
        """Load the files of one Triton model once more under another name."""
        from tao2serve.triton.control import TritonControl

        repository = Path(self.environment["TAO2SERVE_MODEL_REPOSITORY"])
        shutil.copytree(repository / name, repository / copy)
        config = repository / copy / "config.pbtxt"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f'name: "{name}"', f'name: "{copy}"', 1), encoding="utf-8")
        with TritonControl(self.triton) as control:
            control.load(copy)

    def cpu_s(self, *servers: str) -> float:
        """Return the processor seconds that these servers, or both, have used up to now."""
        return sum(cpu_s(self.pid(name)) for name in servers or SERVERS)

    def pid(self, name: str) -> int:
        """The process of one of SERVERS."""
        return next(record.pid for record in self.state.processes if record.name == name)


@contextlib.contextmanager
def running_stack() -> Iterator[Stack]:
    """Start a sandbox of its own; whatever ends the block, Ctrl-C and SIGTERM too, ends the sandbox and removes it."""
    for name in _TUNING:
        os.environ.pop(name, None)
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="tao2serve-benchmark-") as name:
        home = Path(name) / "home"
        try:
            state = stack.up(home, on_step=lambda step: print(f"starting: {step}", file=sys.stderr))
            environment = {**without_tuning(os.environ), **client_environment(SandboxPaths(home), state)}
            yield Stack(folder=Path(name), state=state, environment=environment)
        finally:
            stack.down(home, purge=True)


def without_tuning(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what slows numpy here, and without settings of the caller's."""
    ours = ("TAO2SERVE_", "CLEARML_")
    return {name: value for name, value in environment.items() if name not in _TUNING and not name.startswith(ours)}


def cpu_s(pid: int) -> float:
    """Return the processor seconds of a process and all it started, up to now."""
    process = psutil.Process(pid)
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system
    return total
