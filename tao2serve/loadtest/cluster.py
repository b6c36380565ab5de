"""A load test in several processes: the master hands out parts and gathers records, workers join and send them.

It goes through locust's own master and worker. Over locust's connections travel, in this order:

    worker → master   join (version)
    master → worker   assignment (this worker's part, names and digest of the images), or a refusal
    worker → master   image (index); master → worker  image (its bytes)       … one at a time, until it has all
    worker → master   ready
    master → workers  locust's own order to start users, once all are ready and to nobody else
    master → all      begin: each process starts the warm-up, on its own clock, when it reads this
    worker → master   in each of locust's reports: rows and samples since the last, and in the end how many in all

This module imports no locust: it gets its runner, and `time` is patched in locust's process, so sleeping lets other
greenlets run. The connections are neither encrypted nor authenticated, as locust makes them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tao2serve
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.checks import Checks
from tao2serve.loadtest.plan import ClosedLoop, digest_of
from tao2serve.loadtest.records import CpuSample, Row, sample_row
from tao2serve.loadtest.tally import Tally

__all__ = ["LOST_EXIT", "REFUSED_EXIT", "Gathering", "Part"]

LOST_EXIT = 3  # a process of a load test that cannot go on; its log says why
REFUSED_EXIT = 5  # a worker that the master has no use for
_JOIN, _ASSIGNMENT, _IMAGE, _READY, _BEGIN = (
    f"tao2serve_{name}" for name in ("join", "assignment", "image", "ready", "begin")
)
_MEMBER = "tao2serve"  # of locust's reports
_POLL_S = 0.05
_USERS_WAIT_S = 15.0  # for users to be there, once their workers are
_REPORT_WAIT_S = 15.0  # for the records of a worker that has ended its requests
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    process: int
    checks: Checks
    is_ready: bool = False
    requests: int = 0
    failures: int = 0
    capped: int = 0
    open_limit: int = 0
    total: int | None = None  # rows that it has to send, said when it has ended
    rows: list[Row] = field(default_factory=list)
    samples: list[CpuSample] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.total is not None and len(self.rows) >= self.total


@dataclass(slots=True, kw_only=True)
class Gathering:
    """The master's side: `count` workers, what each said, and when the window is on the master's clock."""

    runner: Any
    assignment: Assignment
    images: tuple[Path, ...]
    count: int
    window_start_s: float = 0.0
    window_end_s: float = 0.0
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)  # and why
    _bad: str = ""  # what a worker sent that cannot be
    _start_users: Callable[..., None] = lambda *_: None

    def listen(self, worker_report: Any) -> None:
        """Answer workers from now on; `worker_report` is locust's event of that name.

        Locust would start users in the first so many processes that connect, wanted or not, and spread them anew when
        another one does. They start when we say so.
        """
        self._start_users, self.runner.start = self.runner.start, lambda *_, **__: None
        self.runner.register_message(_JOIN, lambda msg, **_: self._join(msg.node_id, msg.data))
        self.runner.register_message(_IMAGE, lambda msg, **_: self._send_image(msg.node_id, int(msg.data["index"])))
        self.runner.register_message(_READY, lambda msg, **_: self._note_ready(msg.node_id))
        worker_report.add_listener(lambda client_id, data: self._take(client_id, data))

    @property
    def requests(self) -> int:
        return sum(worker.requests for worker in self._workers.values())

    @property
    def failures(self) -> int:
        return sum(worker.failures for worker in self._workers.values())

    @property
    def capped(self) -> int:
        return sum(worker.capped for worker in self._workers.values())

    @property
    def open_limit(self) -> int:
        """The lowest that a worker has: its limit of files may be lower than another's."""
        return min((worker.open_limit for worker in self._workers.values()), default=0)

    @property
    def rows(self) -> list[Row]:
        return [row for worker in self._workers.values() for row in worker.rows]

    @property
    def samples(self) -> list[CpuSample]:
        return [sample for worker in self._workers.values() for sample in worker.samples]

    def run(self, *, wait_s: float, on_window: Callable[[], None]) -> str:
        """Conduct the test and return when every record is here, or what went wrong; "" if nothing did.

        `on_window` is called when the run time starts.
        """
        failure = self._wait(lambda: self._ready == self.count, wait_s, lambda: self._too_few(wait_s))
        if failure:
            return failure
        for name in tuple(self.runner.clients):
            if name not in self._workers:
                self._forget(name)
        self._start_users(self.assignment.users, self.assignment.users)
        failure = self._wait(self._have_users, _USERS_WAIT_S, lambda: "the workers did not start their users")
        if failure:
            return failure
        self.window_start_s = time.monotonic() + self.assignment.warmup_s
        self.window_end_s = self.window_start_s + self.assignment.run_time_s
        self.runner.send_message(_BEGIN)
        failure = self._wait(lambda: time.monotonic() >= self.window_start_s, self.assignment.warmup_s + 1, str)
        if failure:
            return failure
        on_window()
        rest_s = self.window_end_s - time.monotonic() + self.assignment.timeout_s + 1 + _REPORT_WAIT_S
        return self._wait(lambda: all(worker.is_complete for worker in self._workers.values()), rest_s, self._missing)

    def _wait(self, is_reached: Callable[[], bool], limit_s: float, given_up: Callable[[], str]) -> str:
        """Wait for a condition; return what prevented it, `given_up` after the time, "" if it came true."""
        deadline_s = time.monotonic() + limit_s
        while not is_reached():
            if wrong := self._bad or self._lost():
                return wrong
            if time.monotonic() > deadline_s:
                return given_up()
            time.sleep(_POLL_S)
        return ""

    @property
    def _ready(self) -> int:
        return sum(worker.is_ready for worker in self._workers.values())

    def _too_few(self, wait_s: float) -> str:
        refused = f"; {len(self._refused)} refused: {', '.join(sorted(set(self._refused.values())))}"
        said = f"{self._ready} of {self.count} workers were ready after {wait_s:.0f} s"
        return f"gave up waiting for workers: {said}{refused if self._refused else ''}"

    def _have_users(self) -> bool:
        """Each process has its one sender of an open loop; those of a closed one may be spread in any way."""
        counts = [client.user_count for name in self._workers if (client := self.runner.clients.get(name))]
        if isinstance(self.assignment.shape, ClosedLoop):
            return bool(sum(counts) == self.assignment.users)
        return bool(counts == [1] * self.count)

    def _lost(self) -> str:
        """Name the first worker that locust no longer hears of, and that still owes something."""
        for name, worker in self._workers.items():
            client = self.runner.clients.get(name)
            if not worker.is_complete and (client is None or client.state == "missing"):
                return f"worker {worker.process} ({_machine(name)}) was lost during the test"
        return ""

    def _missing(self) -> str:
        owing = [worker for worker in self._workers.values() if not worker.is_complete]
        sentence = "; ".join(
            f"worker {worker.process} sent {len(worker.rows)} of "
            f"{'an unknown number of' if worker.total is None else worker.total} records"
            for worker in owing
        )
        return f"gave up waiting for workers: {sentence}"

    def _join(self, name: str, said: dict[str, Any]) -> None:
        worker = self._workers.get(name)
        refusal = ""
        if worker is None and said["version"] != tao2serve.__version__:
            refusal = f"the master runs tao2serve {tao2serve.__version__}, this worker {said['version']}"
        elif worker is None and len(self._workers) == self.count:
            refusal = f"the test has its {self.count} workers"
        if refusal:
            self._refuse(name, refusal)
            return
        if worker is None:
            checks = Checks(assignment=self.assignment, images=len(self.images))
            worker = self._workers[name] = _Worker(process=len(self._workers), checks=checks)
        part = {
            "assignment": replace(self.assignment, process=worker.process, processes=self.count).to_dict(),
            "images": [path.name for path in self.images],
            "digest": digest_of(self.images),
        }
        self.runner.send_message(_ASSIGNMENT, part, name)

    def _refuse(self, name: str, refusal: str) -> None:
        if name not in self._refused:
            _logger.warning("refused a worker, %s: %s", _machine(name), refusal)
        self._refused[name] = refusal
        self.runner.send_message(_ASSIGNMENT, {"refused": refusal}, name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Let locust count on the workers of the test alone."""
        if name in self.runner.clients:
            del self.runner.clients[name]

    def _send_image(self, name: str, index: int) -> None:
        self.runner.send_message(_IMAGE, {"index": index, "body": self.images[index].read_bytes()}, name)

    def _note_ready(self, name: str) -> None:
        if worker := self._workers.get(name):
            worker.is_ready = True

    def _take(self, name: str, report: dict[str, Any]) -> None:
        worker, part = self._workers.get(name), report.get(_MEMBER)
        if worker is None or part is None:
            return
        try:
            for member in ("requests", "failures", "capped", "open_limit"):
                setattr(worker, member, int(part[member]))
            worker.total = None if part["total"] is None else int(part["total"])
            worker.rows += [worker.checks.row(row) for row in part["rows"]]
            worker.samples += [worker.checks.sample(row, worker.process) for row in part["samples"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            # to raise here would be a line in locust's log, and a test without these requests
            self._bad = f"worker {worker.process} ({_machine(name)}) sent a record that cannot be: {error}"


@dataclass(slots=True, kw_only=True)
class Part:
    """A worker's side: joins until answered, fetches the images into `folder`, reports what `tally` counts."""

    runner: Any
    tally: Tally
    folder: Path
    on_ready: Callable[[Assignment, tuple[Path, ...]], None]
    on_begin: Callable[[], None]
    _assignment: Assignment | None = None
    _digest: str = ""
    _names: tuple[str, ...] = ()
    _images: list[Path] = field(default_factory=list)
    _sent: int = 0

    def join(self, report_to_master: Any) -> None:
        """Ask the master for a part, and report from now on; `report_to_master` is locust's event of that name."""
        self.runner.register_message(_ASSIGNMENT, lambda msg, **_: _or_end(lambda: self._accept(msg.data)))
        # Concurrent: after the last image the payloads are made, while this worker still answers its master.
        keep = lambda msg, **_: _or_end(lambda: self._keep(msg.data))  # noqa: E731
        self.runner.register_message(_IMAGE, keep, concurrent=True)
        self.runner.register_message(_BEGIN, lambda **_: _or_end(self.on_begin))
        report_to_master.add_listener(lambda client_id, data: self._report(data))
        while self._assignment is None:
            self.runner.send_message(_JOIN, {"version": tao2serve.__version__})
            time.sleep(1)

    def _accept(self, part: dict[str, Any]) -> None:
        if self._assignment is not None:
            return  # the answer to an earlier asking
        if "refused" in part:
            raise ConnectionRefusedError(part["refused"])
        self._assignment = Assignment.from_dict(part["assignment"])
        self._names, self._digest = tuple(part["images"]), part["digest"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runner.send_message(_IMAGE, {"index": 0})

    def _keep(self, image: dict[str, Any]) -> None:
        index = int(image["index"])
        # The number keeps names apart, and only the suffix of the name the master said gets into a path.
        path = self.folder / f"{index:06}{Path(self._names[index]).suffix}"
        path.write_bytes(image["body"])
        self._images.append(path)
        if len(self._images) < len(self._names):
            self.runner.send_message(_IMAGE, {"index": len(self._images)})
            return
        if digest_of(self._images) != self._digest:
            raise ValueError("the images that arrived are not those the master has")
        assert self._assignment is not None
        self.on_ready(self._assignment, tuple(self._images))
        self.runner.send_message(_READY)

    def _report(self, report: dict[str, Any]) -> None:
        tally = self.tally
        rows, tally.rows = tally.rows, []
        samples, tally.samples = tally.samples, []
        self._sent += len(rows)
        report[_MEMBER] = {
            "rows": rows,
            "samples": [sample_row(sample) for sample in samples],
            "requests": tally.requests,
            "failures": tally.failures,
            "capped": tally.capped,
            "open_limit": tally.open_limit,
            "total": self._sent if tally.finished else None,
        }


def _machine(name: str) -> str:
    """Return the host's part of locust's name of a worker."""
    return name.rpartition("_")[0]


def _or_end(work: Callable[[], None]) -> None:
    """End this process if a message cannot be followed: locust would log the error and wait for ever."""
    try:
        work()
    except ConnectionRefusedError as error:
        _logger.error("refused: %s", error)
        logging.shutdown()
        os._exit(REFUSED_EXIT)
    except Exception:
        _logger.exception("cannot take part in the load test")
        logging.shutdown()
        os._exit(LOST_EXIT)
