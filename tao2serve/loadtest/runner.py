"""Run a load test: start locust as a process, watch it, read what it recorded.

The processes are ours from start to end: each in a session of its own (a Ctrl-C at the terminal reaches only us),
with a hard time limit, ended by its id whatever happens here; and each ends itself when we are gone.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import tao2serve
from tao2serve.errors import ToolError, UsageError
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.locust_process import ended, remove_scratch, require_locust, start_locust, tail
from tao2serve.loadtest.machine import MachineSample, describe_machine, sample_machine
from tao2serve.loadtest.plan import LoadPlan, LoadProgress, Workers, digest_of, images_within, make_directory
from tao2serve.loadtest.probe import probe
from tao2serve.loadtest.records import RUN_FILE_VARIABLE, WORKER_VARIABLE, read_records
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.servers import watched_servers, with_triton
from tao2serve.loadtest.serving_facts import describe_servers
from tao2serve.loadtest.summary import summarise
from tao2serve.loadtest.worker import worker_options

__all__ = ["run_load_test"]

_POLL_S = 0.25
_PROGRESS_EVERY_S = 1.0
_START_LIMIT_S = 60.0  # to import locust and to spawn users, on a slow and busy machine
_END_LIMIT_S = 30.0  # to gather and write the records

OnProgress = Callable[[LoadProgress], None]


def run_load_test(
    plan: LoadPlan,
    *,
    directory: Path | None = None,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    triton_grpc: str = "",
) -> LoadResult:
    """Run a load test to its end and return what it found; no process is left behind.

    The load comes from `plan.processes` processes on this machine, or instead of them from `workers` that join.
    Locust's log stays in `directory` as locust.log; without one it is kept only if locust failed.
    `triton_grpc` is HOST:PORT of a Triton that may be the plan's, to read its statistics if it is.
    `on_progress` is called about once per second. Raises InputError (no images), ServiceError (a probe
    request got no 200, before any load), ToolError (locust is missing, failed or ran over its time; a process
    that generated load was lost, or not all of its records arrived), UsageError (both kinds of processes).
    """
    require_locust()
    if workers and plan.processes > 1:
        raise UsageError("processes", "and workers that join exclude each other", hint="start them as workers too")
    images = images_within(plan.images)
    plan = with_triton(plan, configured=triton_grpc)
    sent = probe(plan.targets, images, timeout_s=plan.timeout_s)
    scratch = Path(tempfile.mkdtemp(prefix="tao2serve-loadtest-"))
    keep = False
    try:
        if directory is not None:
            make_directory(directory)
        log = (directory or scratch).resolve() / "locust.log"
        try:
            result = _run(plan, images, workers, scratch=scratch, log=log, on_progress=on_progress)
            said = {f"sent to {label}": note for label, note in sent.items()}
            return replace(result, environment={**result.environment, **said})
        except ToolError as error:
            keep = directory is None and error.log is not None
            raise
    finally:
        remove_scratch(scratch, but=log if keep else None)


def _run(
    plan: LoadPlan,
    images: tuple[Path, ...],
    workers: Workers | None,
    *,
    scratch: Path,
    log: Path,
    on_progress: OnProgress | None,
) -> LoadResult:
    records, run_file = scratch / "records.jsonl", scratch / "run.json"
    count = workers.count if workers else plan.processes if plan.processes > 1 else 0
    workers_wait_s = workers.wait_s if workers else _START_LIMIT_S
    assignment = Assignment.of(plan, processes=max(count, 1))
    machine = describe_machine()
    serving = describe_servers(plan, cpu_model=machine.get("cpu_model", ""))
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(watched_servers(plan))
        reader, writer = stack.enter_context(_progress_pipe())
        run = {
            "assignment": assignment.to_dict(),
            "images": [str(image.resolve()) for image in images],
            "records": str(records),
            "progress_fd": writer.fileno(),
            "workers": count,
            "workers_wait_s": workers_wait_s,
        }
        run_file.write_text(json.dumps(run), encoding="utf-8")
        log_stream = stack.enter_context(log.open("wb"))
        process = start_locust(
            [*_options(plan, assignment), *(_master_options(workers) if count else [])],
            folder=scratch,
            variables={RUN_FILE_VARIABLE: str(run_file)},
            log=log_stream,
            pass_fds=(writer.fileno(),),
        )
        stack.enter_context(ended(process))
        writer.close()  # the process has its own
        course = _Course(plan=plan, process=process, log=log, on_progress=on_progress)
        if count and workers is None:
            course.on_port = lambda port: _start_workers(stack, course, port, folder=scratch, log=log_stream)
        limit_s = workers_wait_s + plan.warmup_s + plan.run_time_s + plan.timeout_s + 2 * _END_LIMIT_S
        course.watch(reader.fileno(), limit_s=limit_s)
        code = process.wait(timeout=_END_LIMIT_S)
    if code != 0 or not records.exists():
        raise ToolError("locust", f"ended early with exit code {code}", evidence=tail(log), log=log)
    recorded = read_records(records)
    environment = {
        **machine,
        **serving,
        "tao2serve": tao2serve.__version__,
        "images": str(len(images)),
        "images_digest": digest_of(images)[:16],  # enough to tell them apart
        "load_generators": str(max(count, 1)),
    }
    return summarise(
        plan, recorded, cpu=recorded.samples, machine=course.machine, environment=environment, log=log,
        server=servers.during(recorded),
    )  # fmt: skip


def _options(plan: LoadPlan, assignment: Assignment) -> list[str]:
    # No --run-time: locust counts it from before the users are there. The locustfile ends the test itself.
    # Without path and query: everybody on this machine can read them in the list of processes.
    parts = urlsplit(address if "://" in (address := plan.targets[0].url) else f"http://{address}")
    host = f"{parts.scheme}://{parts.netloc}"
    return [
        *("--headless", "--only-summary", "--host", host),
        *("--users", str(assignment.users), "--spawn-rate", str(assignment.users)),
        *("--exit-code-on-error", "0"),
    ]


def _master_options(workers: Workers | None) -> list[str]:
    # port 0: any free one, which the master says once it has it
    host, port = (workers.host, workers.port) if workers else ("127.0.0.1", 0)
    return [
        *("--master", "--master-bind-host", host, "--master-bind-port", str(port)),
        *("--expect-workers", "1"),  # users start when Gathering says so
    ]


def _start_workers(stack: contextlib.ExitStack, course: _Course, port: int, *, folder: Path, log: IO[bytes]) -> None:
    for _ in range(course.plan.processes):
        worker = start_locust(
            worker_options("127.0.0.1", port), folder=folder, variables={WORKER_VARIABLE: str(os.getpid())}, log=log
        )
        course.workers.append(stack.enter_context(ended(worker)))


@contextlib.contextmanager
def _progress_pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """Yield reader and writer; files, since those close once: a number that is free again may be another test's."""
    reading, writing = os.pipe()
    with io.FileIO(reading, "rb") as reader, io.FileIO(writing, "wb") as writer:
        yield reader, writer


@dataclass(slots=True, kw_only=True)
class _Course:
    """A running test: passes on its progress, about once per second, and looks after its processes."""

    plan: LoadPlan
    process: subprocess.Popen[bytes]
    log: Path
    on_progress: OnProgress | None
    on_port: Callable[[int], None] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    machine: list[MachineSample] = field(default_factory=list)
    _unread: bytes = b""
    _told_at_s: float = -math.inf

    def watch(self, reader: int, *, limit_s: float) -> None:
        """Return when the process has closed its end of the pipe; raises ToolError if the test cannot go on."""
        deadline_s = time.monotonic() + limit_s
        while True:
            ready, _, _ = select.select([reader], [], [], _POLL_S)
            if ready:
                chunk = os.read(reader, 65536)
                if not chunk:
                    return
                *lines, self._unread = (self._unread + chunk).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
            self.machine.append(sample_machine())
            self._look_after_workers()
            if time.monotonic() > deadline_s:
                fact = f"did not end within {limit_s:.0f} s and was stopped"
                raise ToolError("locust", fact, evidence=tail(self.log), log=self.log)

    def _take(self, told: dict[str, Any]) -> None:
        if "failed" in told:
            raise ToolError("load test", told["failed"], evidence=tail(self.log), log=self.log)
        if "port" in told:
            if self.on_port is not None:
                self.on_port(int(told["port"]))
            return
        now_s = time.monotonic()
        if self.on_progress is not None and now_s - self._told_at_s >= _PROGRESS_EVERY_S * 0.9:
            self._told_at_s = now_s
            self.on_progress(_progress(self.plan, told))

    def _look_after_workers(self) -> None:
        """A worker that ends before the master told it to, with 0, was killed or failed."""
        for number, worker in enumerate(self.workers):
            if worker.poll():
                fact = f"process {number} of {len(self.workers)} ended early with exit code {worker.returncode}"
                raise ToolError("load generator", fact, evidence=tail(self.log), log=self.log)


def _progress(plan: LoadPlan, told: dict[str, Any]) -> LoadProgress:
    now_s, start_s, end_s = float(told["now_s"]), float(told["window_start_s"]), float(told["window_end_s"])
    total_s = plan.warmup_s + plan.run_time_s
    if not end_s:
        phase, elapsed_s = "starting", 0.0
    else:
        phase = "warm-up" if now_s < start_s else "run" if now_s < end_s else "finishing"
        elapsed_s = min(now_s - start_s + plan.warmup_s, total_s)
    return LoadProgress(
        phase=phase,
        elapsed_s=elapsed_s,
        total_s=total_s,
        requests=int(told["requests"]),
        failures=int(told["failures"]),
    )
