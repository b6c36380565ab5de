"""A load test in several processes: the master hands out parts and gathers records, workers join and send them.

It goes through locust's own master and worker. Over locust's connections travel, in this order:

    worker → master   join (version)
    master → worker   assignment (this worker's part, names and digest of the images), or a refusal
    worker → master   image (index); master → worker  image (its bytes)       … one at a time, until it has all
    worker → master   ready
    master → all      begin: each process starts the warm-up, on its own clock, when it reads this
    worker → master   in each of locust's reports: rows and samples since the last, and in the end how many in all

This module imports no locust: it gets its runner, and `time` is patched in locust's process, so sleeping lets other
greenlets run. The connections are neither encrypted nor authenticated, as locust makes them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tao2serve
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.records import CpuSample, Row, sample_row
from tao2serve.loadtest.tally import Tally

__all__ = ["LOST_EXIT", "Gathering", "Part"]

LOST_EXIT = 3  # a process of a load test that cannot go on; its log says why
_JOIN, _ASSIGNMENT, _IMAGE, _READY, _BEGIN = (
    f"tao2serve_{name}" for name in ("join", "assignment", "image", "ready", "begin")
)
_MEMBER = "tao2serve"  # of locust's reports
_POLL_S = 0.05
_REPORT_WAIT_S = 15.0  # for the records of a worker that has ended its requests
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    process: int
    is_ready: bool = False
    requests: int = 0
    failures: int = 0
    capped: int = 0
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

    def listen(self, worker_report: Any) -> None:
        """Answer workers from now on; `worker_report` is locust's event of that name."""
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
    def rows(self) -> list[Row]:
        return [row for worker in self._workers.values() for row in worker.rows]

    @property
    def samples(self) -> list[CpuSample]:
        return [sample for worker in self._workers.values() for sample in worker.samples]

    def run(self, *, wait_s: float, on_window: Callable[[], None]) -> str:
        """Conduct the test and return when every record is here, or what went wrong; "" if nothing did.

        `on_window` is called when the run time starts.
        """
        failure = self._wait(self._can_begin, wait_s)
        if failure:
            ready = sum(worker.is_ready for worker in self._workers.values())
            return f"{failure}: {ready} of {self.count} workers were ready after {wait_s:.0f} s"
        self.window_start_s = time.monotonic() + self.assignment.warmup_s
        self.window_end_s = self.window_start_s + self.assignment.run_time_s
        self.runner.send_message(_BEGIN)
        failure = self._wait(lambda: time.monotonic() >= self.window_start_s, self.assignment.warmup_s + 1)
        if failure:
            return failure
        on_window()
        rest_s = self.window_end_s - time.monotonic() + self.assignment.timeout_s + 1 + _REPORT_WAIT_S
        failure = self._wait(lambda: all(worker.is_complete for worker in self._workers.values()), rest_s)
        return f"{failure}: {self._missing()}" if failure else ""

    def _wait(self, is_reached: Callable[[], bool], limit_s: float) -> str:
        """Wait for a condition; return what prevented it, "" if it came true."""
        deadline_s = time.monotonic() + limit_s
        while not is_reached():
            if lost := self._lost():
                return lost
            if time.monotonic() > deadline_s:
                return "gave up waiting for workers"
            time.sleep(_POLL_S)
        return ""

    def _can_begin(self) -> bool:
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        return len(ready) == self.count and self.runner.user_count >= self.assignment.users

    def _lost(self) -> str:
        """Name the first worker that locust no longer hears of, and that still owes something."""
        for name, worker in self._workers.items():
            client = self.runner.clients.get(name)
            if not worker.is_complete and (client is None or client.state == "missing"):
                return f"worker {worker.process} ({name.rpartition('_')[0]}) was lost during the test"
        return ""

    def _missing(self) -> str:
        owing = [worker for worker in self._workers.values() if not worker.is_complete]
        return "; ".join(
            f"worker {worker.process} sent {len(worker.rows)} of "
            f"{'an unknown number of' if worker.total is None else worker.total} records"
            for worker in owing
        )

    def _join(self, name: str, said: dict[str, Any]) -> None:
        worker = self._workers.get(name)
        if worker is None and said["version"] != tao2serve.__version__:
            refusal = f"the master runs tao2serve {tao2serve.__version__}, this worker {said['version']}"
            _logger.error("refused a worker: %s", refusal)
            self.runner.send_message(_ASSIGNMENT, {"refused": refusal}, name)
            return
        if worker is None and len(self._workers) == self.count:
            self.runner.send_message(_ASSIGNMENT, {"refused": f"the test has its {self.count} workers"}, name)
            return
        if worker is None:
            worker = self._workers[name] = _Worker(process=len(self._workers))
        part = {
            "assignment": replace(self.assignment, process=worker.process, processes=self.count).to_dict(),
            "images": [path.name for path in self.images],
            "digest": _digest(self.images),
        }
        self.runner.send_message(_ASSIGNMENT, part, name)

    def _send_image(self, name: str, index: int) -> None:
        self.runner.send_message(_IMAGE, {"index": index, "body": self.images[index].read_bytes()}, name)

    def _note_ready(self, name: str) -> None:
        if worker := self._workers.get(name):
            worker.is_ready = True

    def _take(self, name: str, report: dict[str, Any]) -> None:
        worker, part = self._workers.get(name), report.get(_MEMBER)
        if worker is None or part is None:
            return
        worker.requests, worker.failures, worker.capped = part["requests"], part["failures"], part["capped"]
        worker.total = part["total"]
        worker.rows += part["rows"]
        worker.samples += [
            CpuSample(at_s=at_s, used_s=used_s, waited_s=waited_s, late_ms=tuple(late_ms), process=worker.process)
            for at_s, used_s, waited_s, late_ms, _ in part["samples"]
        ]


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
        self.runner.register_message(_IMAGE, lambda msg, **_: _or_end(lambda: self._keep(msg.data)))
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
        if _digest(self._images) != self._digest:
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
            "total": self._sent if tally.finished else None,
        }


def _digest(images: tuple[Path, ...] | list[Path]) -> str:
    digest = hashlib.sha256()
    for path in images:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _or_end(work: Callable[[], None]) -> None:
    """End this process if a message cannot be followed: locust would log the error and wait for ever."""
    try:
        work()
    except Exception:
        _logger.exception("cannot take part in the load test")
        logging.shutdown()
        os._exit(LOST_EXIT)
