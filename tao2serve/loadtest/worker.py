"""Be one of the load generators of a test that another process, here or on another machine, conducts."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tao2serve.errors import ToolError
from tao2serve.loadtest.addresses import host_and_port
from tao2serve.loadtest.cluster import REFUSED_EXIT
from tao2serve.loadtest.locust_process import ended, remove_scratch, require_locust, start_locust, tail
from tao2serve.loadtest.records import WORKER_VARIABLE

__all__ = ["run_worker", "worker_options"]


def run_worker(address: str, *, processes: int = 1, runs: int = 1, directory: Path | None = None) -> None:
    """Join the load test conducted at HOST:PORT with so many processes, and return when it has ended, `runs` times.

    A test of several runs (a sweep) needs its workers again for each. Joining waits 5 minutes for the address to
    answer. The images come from there. Locust's log stays in `directory` as worker.log, and without one where the
    error says if there is one. Raises ToolError if locust is missing, is refused, or cannot join.
    """
    host, port = host_and_port(address, option="--worker", hint="--worker HOST:PORT, where the master listens")
    require_locust()
    scratch = Path(tempfile.mkdtemp(prefix="tao2serve-worker-")).resolve()
    log = (directory or scratch).resolve() / "worker.log"
    keep = False
    try:
        for _ in range(runs):
            _run_once(host, port, processes, folder=scratch, log=log)
    except ToolError as error:
        keep = directory is None and error.log is not None
        raise
    finally:
        remove_scratch(scratch, but=log if keep else None)


def _run_once(host: str, port: int, processes: int, *, folder: Path, log: Path) -> None:
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("ab"))
        started = [
            stack.enter_context(
                ended(
                    start_locust(
                        worker_options(host, port),
                        folder=folder,
                        variables={WORKER_VARIABLE: str(os.getpid())},
                        log=stream,
                    )
                )
            )
            for _ in range(processes)
        ]
        codes = [process.wait() for process in started]
    if any(codes):
        refused = REFUSED_EXIT in codes
        fact = "was refused by the master" if refused else f"ended with exit code {max(codes, key=abs)}"
        hint = "start as many workers as the master expects, of its version" if refused else "see the log"
        raise ToolError(f"worker for {host}:{port}", fact, evidence=tail(log), hint=hint, log=log)


def worker_options(host: str, port: int) -> list[str]:
    """Return locust's options for a worker of the master at that address."""
    return [
        *("--worker", "--headless", "--only-summary", "--exit-code-on-error", "0"),
        *("--master-host", host, "--master-port", str(port)),
    ]
