"""What one generator process counts while it sends: requests, and how well the process itself is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tao2serve.loadtest.checks import STAGES
from tao2serve.loadtest.records import CpuSample, Row
from tao2serve.loadtest.sending import Reply

__all__ = ["Tally", "waited_for_core_s"]

_SCHEDSTAT = Path("/proc/self/schedstat")
_Started = tuple[int, int, int, float, float]  # user, image, target, intended_s, start_s


@dataclass(slots=True)
class Tally:
    """Counts the requests of a process; after `finish` it takes no more.

    Its times are of the monotonic clock, those of `rows` relative to the start of the run time.
    """

    keep_rows: bool = False
    requests: int = 0
    failures: int = 0
    capped: int = 0  # requests that waited because too many were open
    open_limit: int = 0  # so many
    rows: list[Row] = field(default_factory=list)
    samples: list[CpuSample] = field(default_factory=list)
    begun_s: float = 0.0
    window_start_s: float = 0.0
    window_end_s: float = 0.0  # 0 before the begin, and in a test without an end of its own
    finished: bool = False
    _open: dict[int, _Started] = field(default_factory=dict)
    _number: int = 0
    _stages: set[str] = field(default_factory=set)

    @property
    def open_requests(self) -> int:
        return len(self._open)

    def begin(self, *, warmup_s: float, run_time_s: float) -> None:
        """Let the warm-up begin now."""
        self.begun_s = time.monotonic()
        self.window_start_s = self.begun_s + warmup_s
        self.window_end_s = self.window_start_s + run_time_s

    @property
    def is_over(self) -> bool:
        """Whether no further request is to start."""
        return 0 < self.window_end_s <= time.monotonic()

    def start(self, user: int, image: int, target: int, intended_s: float) -> int:
        """Note that a request starts now, and return its number for `end`."""
        self._number += 1
        self._open[self._number] = (user, image, target, intended_s, time.monotonic())
        return self._number

    def end(self, number: int, reply: Reply) -> None:
        """Count what came of a request."""
        started = self._open.pop(number, None)
        if started is None or self.finished:
            return
        self.requests += 1
        if reply.error:
            self.failures += 1
        if self.keep_rows:
            user, image, target, intended_s, start_s = started
            zero_s = self.window_start_s
            timing_ms = self._timing(reply)
            self.rows.append(
                [
                    *(user, image, intended_s - zero_s, start_s - zero_s),
                    *(reply.latency_ms, reply.status, reply.error, reply.detail),
                    *(timing_ms, target),
                ]
            )

    def _timing(self, reply: Reply) -> Mapping[str, float] | None:
        """Return the server's account unless with it there would be more stages than a table has columns."""
        names = self._stages.union(reply.timing_ms or ())
        if len(names) > STAGES:
            return None
        self._stages = names
        return reply.timing_ms

    def finish(self) -> None:
        """Count what is still open as timeouts, since to drop it would drop the slowest; then take no more."""
        now_s = time.monotonic()
        for number, (*_, start_s) in tuple(self._open.items()):
            waited_ms = (now_s - start_s) * 1000
            self.end(
                number, Reply(latency_ms=waited_ms, status=0, error="timeout", detail="open at the end of the test")
            )
        self.finished = True

    def sample(self, late_ms: list[float]) -> None:
        """Note the CPU that this process, and the thread that calls, used by now, and how late it woke since before."""
        now_s = time.monotonic()
        self.samples.append(
            CpuSample(
                at_s=now_s - self.window_start_s,
                used_s=time.process_time(),
                thread_s=time.thread_time(),
                waited_s=waited_for_core_s(),
                late_ms=tuple(round(late, 2) for late in late_ms),
            )
        )


def waited_for_core_s(schedstat: Path = _SCHEDSTAT) -> float:
    """Return the seconds for which this process could have run but others had its core; 0 where Linux does not say.

    Linux counts it for the main thread, in which all greenlets run.
    """
    try:
        return int(schedstat.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
