"""Build an engine with NVIDIA's `trtexec`, run as a program of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from tao2serve.errors import ToolError, UsageError
from tao2serve.export.engine.builder import BuilderName, News
from tao2serve.export.engine.commands import shown, trtexec_command
from tao2serve.export.engine.request import EngineRequest
from tao2serve.interrupts import deferred_interrupts

__all__ = ["TrtexecBuilder"]

_POLL_S: Final = 0.1
_GRACE_S: Final = 5.0
_CHUNK: Final = 1 << 16
_SHOWN_ERRORS: Final = 12
# "[11/23/2026-11:26:00] [I] [TRT] text": time and level tell a reader of progress nothing.
_PREFIX: Final = re.compile(r"^\[[^\]]*\] \[[VIWE]\] (?:\[TRT\] )?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecBuilder:
    """Builds with the program `program` of TensorRT `version`; all it prints goes to `log`."""

    program: Path
    version: str
    log: Path
    timeout_s: float = 3600.0

    @property
    def name(self) -> BuilderName:
        return "trtexec"

    def build(self, request: EngineRequest, *, on_news: News) -> bytes:
        """Return the plan. Raises ToolError, with trtexec's errors and the log, if it fails or takes too long.

        An interrupt ends the program as well.
        """
        with tempfile.TemporaryDirectory(prefix="tao2serve-engine-") as folder:
            plan = Path(folder) / "model.plan"
            command = trtexec_command(str(self.program), request, version=self.version, plan=plan)
            status = self._run(command, on_news)
            try:
                content = plan.read_bytes() if status == 0 else b""
            except OSError:
                content = b""
        if not content:
            said = f"exit status {status}" if status else "it ended well and left no plan"
            raise ToolError(
                str(self.program),
                f"did not build {request.artifact.path.name}",
                evidence="\n".join([said, *_last_errors(self.log)]),
                hint=f"the command was\n  {shown(command)}",
                log=self.log,
            )
        return content

    def _run(self, command: Sequence[str], on_news: News) -> int:
        """Run it to its end and return its exit status, telling each line it prints."""
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output, reading = self.log.open("wb"), self.log.open("rb")
        except OSError as error:
            raise UsageError(str(self.log), "cannot be written", evidence=error.strerror or str(error)) from error
        with output, reading:
            try:
                # A session of its own: Ctrl-C reaches us, and we end it and whatever it started.
                process = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ToolError(str(self.program), "cannot be run", evidence=error.strerror or str(error)) from error
            try:
                return self._follow(process, reading, on_news)
            finally:
                with deferred_interrupts():
                    _end(process)

    def _follow(self, process: subprocess.Popen[bytes], reading: BinaryIO, on_news: News) -> int:
        deadline = time.monotonic() + self.timeout_s
        while True:
            status = process.poll()  # before the last reading, so that none of its words is missed
            line = _last_line(reading)
            if line:
                on_news(line)
            if status is not None:
                return status
            if time.monotonic() >= deadline:
                raise ToolError(
                    str(self.program),
                    f"did not finish within {self.timeout_s:g} s, and was ended",
                    evidence="\n".join(_last_errors(self.log)),
                    log=self.log,
                )
            time.sleep(_POLL_S)


def _last_line(reading: BinaryIO) -> str:
    """Return the last line that was printed since the last call; "" if there is none."""
    text = ""
    while chunk := reading.read(_CHUNK):
        text = chunk.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return _PREFIX.sub("", lines[-1])[:200] if lines else ""


def _last_errors(log: Path) -> list[str]:
    """Return the last lines that trtexec marks as errors, or its very last lines if it marked none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - 16 * _CHUNK, 0))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return []
    errors = [line for line in lines if "[E]" in line]
    return [line[:500] for line in (errors or lines)[-_SHOWN_ERRORS:]]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started: SIGTERM, after a while SIGKILL. Nothing to do if it has ended."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # the pid is its group's: it leads a session of its own
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
            return
