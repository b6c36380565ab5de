"""Run a load test: start locust as a process, watch it, read what it recorded.

The process is ours from start to end: a session of its own (a Ctrl-C at the terminal reaches only us), a hard
time limit, ended by its id whatever happens here; and it ends itself when nobody reads the progress pipe.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tao2serve
from tao2serve.errors import InputError, ServiceError, ToolError
from tao2serve.loadtest.machine import describe_machine
from tao2serve.loadtest.plan import ClosedLoop, LoadPlan, LoadProgress, images_within, make_directory
from tao2serve.loadtest.records import RUN_FILE_VARIABLE, read_records
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.servers import watched_servers
from tao2serve.loadtest.summary import CpuSample, summarise
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["run_load_test"]

_INSTALL = "pip install 'tao2serve[loadtest]'"
_POLL_S = 0.25
_PROGRESS_EVERY_S = 1.0
_START_LIMIT_S = 60.0  # to import locust and to spawn users, on a slow and busy machine
_END_LIMIT_S = 30.0  # to write the records
_STOP_WAIT_S = 2.0

OnProgress = Callable[[LoadProgress], None]


def run_load_test(
    plan: LoadPlan, *, directory: Path | None = None, on_progress: OnProgress | None = None
) -> LoadResult:
    """Run a closed-loop load test to its end and return what it found; no process is left behind.

    Locust's log stays in `directory` as locust.log; without one it is kept only if locust failed.
    `on_progress` is called about once per second. Raises InputError (no images), ServiceError (a probe
    request got no 200, before any load), ToolError (locust is missing, failed or ran over its time).
    """
    if importlib.util.find_spec("locust") is None:
        raise ToolError("locust", "is not installed", hint=_INSTALL)
    images = images_within(plan.images)
    _probe(plan, images[0])
    scratch = Path(tempfile.mkdtemp(prefix="tao2serve-loadtest-"))
    keep = False
    try:
        if directory is not None:
            make_directory(directory)
        log = (directory or scratch).resolve() / "locust.log"
        try:
            return _run(plan, images, scratch=scratch, log=log, on_progress=on_progress)
        except ToolError as error:
            keep = directory is None and error.log is not None
            raise
    finally:
        if keep:
            for path in (scratch / "run.json", scratch / "records.jsonl"):
                path.unlink(missing_ok=True)
        else:
            shutil.rmtree(scratch, ignore_errors=True)


def _probe(plan: LoadPlan, image: Path) -> None:
    """Send one request, because load on an endpoint that does not answer measures nothing.

    A server error is asked again twice: an endpoint that fails now and then can be measured.
    """
    for pause_s in (0.5, 0.5, 0.0):
        status, text = _post(plan, image)
        if status < 500:
            break
        time.sleep(pause_s)
    if status == 422:
        raise InputError(
            str(image), f"was refused by {plan.url}", evidence=" ".join(text.split())[:300], hint="give other pictures"
        )
    if status != 200:
        raise ServiceError(
            plan.url,
            f"answered {status} to a probe request with {image.name}",
            evidence=" ".join(text.split())[:300],
            hint="`tao2serve predict` shows the whole answer",
        )


def _post(plan: LoadPlan, image: Path) -> tuple[int, str]:
    """Return status and text of the answer to one image."""
    import httpx

    headers = {"Content-Type": IMAGE_MEDIA_TYPES[image.suffix.lower()]}
    try:
        # trust_env: locust asks no proxy either
        response = httpx.post(
            plan.url, content=image.read_bytes(), headers=headers, timeout=plan.timeout_s, trust_env=False
        )
    except httpx.HTTPError as error:
        evidence = f"{type(error).__name__}: {error}"
        hint = "is the inference service up, and is this its URL?"
        raise ServiceError(plan.url, "does not answer", evidence=evidence, hint=hint) from error
    except OSError as error:
        raise InputError(str(image), "cannot be read", evidence=str(error)) from error
    return response.status_code, response.text


def _run(
    plan: LoadPlan,
    images: tuple[Path, ...],
    *,
    scratch: Path,
    log: Path,
    on_progress: OnProgress | None,
) -> LoadResult:
    records = scratch / "records.jsonl"
    with watched_servers(plan) as servers, _progress_pipe() as (reader, writer):
        run_file = scratch / "run.json"
        run = {
            "url": plan.url,
            "images": [str(image.resolve()) for image in images],
            "users": _users(plan),
            "warmup_s": plan.warmup_s,
            "run_time_s": plan.run_time_s,
            "timeout_s": plan.timeout_s,
            "records": str(records),
            "progress_fd": writer,
        }
        run_file.write_text(json.dumps(run), encoding="utf-8")
        with log.open("wb") as log_stream:
            process = subprocess.Popen(
                _command(plan),
                stdin=subprocess.DEVNULL,
                stdout=log_stream,
                stderr=subprocess.STDOUT,
                cwd=scratch,  # locust reads locust.conf and pyproject.toml of the directory it runs in
                env=_environment(run_file),
                pass_fds=(writer,),
                start_new_session=True,
            )
        with _ended(process):
            os.close(writer)
            cpu = _watch(process, reader, plan, log=log, on_progress=on_progress)
            code = process.wait(timeout=_END_LIMIT_S)
    if code != 0 or not records.exists():
        raise ToolError("locust", f"ended early with exit code {code}", evidence=_tail(log), log=log)
    environment = {**describe_machine(), "tao2serve": tao2serve.__version__, "images": str(len(images))}
    run_records = read_records(records)
    server = servers.during(run_records)
    return summarise(plan, run_records, cpu=cpu, environment=environment, log=log, server=server)


def _users(plan: LoadPlan) -> int:
    return plan.shape.users if isinstance(plan.shape, ClosedLoop) else 1


def _command(plan: LoadPlan) -> list[str]:
    # No --run-time: locust counts it from before the users are there. The locustfile ends the test itself.
    return [
        *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))),
        *("--headless", "--only-summary", "--host", plan.url),
        *("--users", str(_users(plan)), "--spawn-rate", str(_users(plan))),
        *("--exit-code-on-error", "0"),
    ]


def _environment(run_file: Path) -> dict[str, str]:
    """Return the environment of the process: ours, without options for locust, with this very package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    package_root = str(Path(tao2serve.__file__).resolve().parent.parent)
    inherited = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    search = [package_root, *(str(Path(entry).resolve()) for entry in inherited)]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONSAFEPATH": "1",  # the working directory is no place to import from
        RUN_FILE_VARIABLE: str(run_file),
    }


@contextlib.contextmanager
def _progress_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        with contextlib.suppress(OSError):  # closed already once the process had it
            os.close(writer)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind, by its id, whatever ended the block."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(slots=True, kw_only=True)
class _ProgressReader:
    """Turns the lines of the pipe into calls of `on_progress`, about one per second."""

    plan: LoadPlan
    on_progress: OnProgress | None
    unread: bytes = b""
    told_at_s: float = field(default=-math.inf)

    def feed(self, chunk: bytes) -> None:
        *lines, self.unread = (self.unread + chunk).split(b"\n")
        now_s = time.monotonic()
        if lines and self.on_progress is not None and now_s - self.told_at_s >= _PROGRESS_EVERY_S * 0.9:
            self.told_at_s = now_s
            self.on_progress(_progress(self.plan, lines[-1]))


def _progress(plan: LoadPlan, line: bytes) -> LoadProgress:
    told = json.loads(line)
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


def _watch(
    process: subprocess.Popen[bytes],
    reader: int,
    plan: LoadPlan,
    *,
    log: Path,
    on_progress: OnProgress | None,
) -> list[CpuSample]:
    """Pass on progress and sample the CPU of the process until it closes its end of the pipe."""
    import psutil

    limit_s = _START_LIMIT_S + plan.warmup_s + plan.run_time_s + plan.timeout_s + _END_LIMIT_S
    deadline_s = time.monotonic() + limit_s
    progress = _ProgressReader(plan=plan, on_progress=on_progress)
    watched = psutil.Process(process.pid)
    cpu: list[CpuSample] = []
    while True:
        ready, _, _ = select.select([reader], [], [], _POLL_S)
        if ready:
            chunk = os.read(reader, 65536)
            if not chunk:
                return cpu
            progress.feed(chunk)
        with contextlib.suppress(psutil.Error):
            used = watched.cpu_times()
            cpu.append(CpuSample(at_s=time.monotonic(), used_s=used.user + used.system))
        if time.monotonic() > deadline_s:
            fact = f"did not end within {limit_s:.0f} s and was stopped"
            raise ToolError("locust", fact, evidence=_tail(log), log=log)


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
