"""What the users of a process share: what they are to send, what they count, and when they may begin."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
from gevent.event import Event

from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.posting import Image, paths_of
from tao2serve.loadtest.tally import Tally

__all__ = ["Load"]

_OTHER_FILES = 100


@dataclass(slots=True, kw_only=True)
class Load:
    """Users are made when it is `ready`, and send when it has `begun`."""

    tally: Tally
    assignment: Assignment | None = None
    images: tuple[Image, ...] = ()
    numbers: Iterator[int] = field(default_factory=itertools.count)
    ready: Event = field(default_factory=Event)  # assignment and images are there
    begun: Event = field(default_factory=Event)

    def take(self, assignment: Assignment, images: tuple[Image, ...]) -> None:
        """Make what takes time, while other greenlets run (locust's heartbeat is one), and let the users come."""
        self.assignment, self.images, self.numbers = assignment, images, itertools.count()
        self.tally.open_limit = _within_files(assignment.open_limit)
        for target in assignment.targets:
            if target.protocol != "endpoint":
                from tao2serve.loadtest.tritons import make_ready

                make_ready(target, paths_of(images), timeout_s=assignment.timeout_s, between=_let_others_run)
        self.ready.set()

    def begin(self) -> None:
        assert self.assignment is not None
        self.tally.begin(warmup_s=self.assignment.warmup_s, run_time_s=self.assignment.run_time_s)
        self.begun.set()


def _let_others_run() -> None:
    gevent.sleep(0.001)  # 0 would not reach the timers that are due


def _within_files(wanted: int) -> int:
    """Return how many connections this process may hold, at most `wanted`; locust has raised the limit of files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(files - _OTHER_FILES, 1))
