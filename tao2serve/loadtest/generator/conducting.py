"""The course of a test when the runner started the process: alone, as the master of workers, or as one of them."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import gevent
import locust
from gevent.event import Event
from locust import runners

from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.cluster import LOST_EXIT, Gathering, Part
from tao2serve.loadtest.generator.load import Load
from tao2serve.loadtest.generator.telling import end_with, report_progress, tell
from tao2serve.loadtest.generator.watching import watch_itself
from tao2serve.loadtest.posting import load_images
from tao2serve.loadtest.records import write_records
from tao2serve.loadtest.tally import Tally

__all__ = ["conduct_alone", "conduct_workers", "take_part"]

_WORKER_REPORT_INTERVAL_S = 1.0  # locust's own 3 s would be waited for at the end of each test


def conduct_alone(environment: Any, run: dict[str, Any]) -> None:
    """Let the warm-up and the run time pass, wait for the requests still open, write the records, end."""
    load: Load = environment.image_load
    spawned = Event()
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())
    load.take(Assignment.from_dict(run["assignment"]), load_images(tuple(Path(name) for name in run["images"])))
    gevent.spawn(report_progress, load.tally, run["progress_fd"])
    spawned.wait()
    load.begin()
    started_at = time.time() + load.tally.window_start_s - time.monotonic()
    _finish(environment, load)
    environment.runner.stop()
    _write(run, load.tally, started_at)
    environment.runner.quit()


def conduct_workers(environment: Any, run: dict[str, Any]) -> None:
    """Have workers do it, and write what they recorded."""
    assignment = Assignment.from_dict(run["assignment"])
    master = Gathering(
        runner=environment.runner,
        assignment=assignment,
        images=tuple(Path(name) for name in run["images"]),
        count=run["workers"],
    )
    master.listen(environment.events.worker_report)
    # Locust waits for so many that are ready; those of ours may be at work by the time it looks.
    environment.parsed_options.expect_workers = 0
    tell(run["progress_fd"], {"port": environment.runner.server.port})
    gevent.spawn(report_progress, master, run["progress_fd"])
    started_at: list[float] = []
    failure = master.run(wait_s=run["workers_wait_s"], on_window=lambda: started_at.append(time.time()))
    if failure:
        tell(run["progress_fd"], {"failed": failure})
        environment.runner.quit()
        os._exit(LOST_EXIT)
    _write(run, master, started_at[0])
    environment.runner.quit()


def take_part(environment: Any, *, parent: int) -> None:
    """Be a worker: get a part from the master, do it, and let the reports carry its records."""
    runners.WORKER_REPORT_INTERVAL = _WORKER_REPORT_INTERVAL_S
    load: Load = environment.image_load
    gevent.spawn(end_with, parent)
    part = Part(
        runner=environment.runner,
        tally=load.tally,
        folder=Path(f"images-{os.getpid()}").resolve(),
        on_ready=lambda assignment, paths: load.take(assignment, load_images(paths)),
        on_begin=load.begin,
    )
    part.join(environment.events.report_to_master)
    load.begun.wait()
    _finish(environment, load)


def _finish(environment: Any, load: Load) -> None:
    """Return when the users of this process have ended after the run time, or had their time for it."""
    tally, assignment = load.tally, load.assignment
    assert assignment is not None
    gevent.spawn(watch_itself, tally)
    gevent.sleep(tally.window_end_s - time.monotonic())
    # Users end by themselves after the request they are in. To stop them now would be work on the one core
    # that reads their answers: measured, it made the last ones 10 to 15 ms slower.
    limit_s = tally.window_end_s + assignment.timeout_s + 1
    while environment.runner.user_count and time.monotonic() < limit_s:
        gevent.sleep(0.02)
    tally.finish()


def _write(run: dict[str, Any], counted: Tally | Gathering, started_at: float) -> None:
    rows = counted.rows
    header = {
        "started_at": started_at,
        "window_start_s": counted.window_start_s,
        "run_time_s": run["assignment"]["run_time_s"],
        "locust": locust.__version__,
        "python": platform.python_version(),
        "requests": len(rows),
        "capped": counted.capped,
        "open_limit": counted.open_limit,
    }
    write_records(Path(run["records"]), header, rows, samples=counted.samples)
