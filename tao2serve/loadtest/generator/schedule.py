"""An open loop: one greenlet keeps the schedule, others send and wait; no request waits for the answer to another.

Whoever has read an answer takes the next request if it is due already. For all others a sender that rests is called,
or one more is made. So as long as the process has time to spare each request starts when it is due, and as many are
open as the server lets wait. A process that has none starts them late, oldest first, and sends as fast as it can
instead of making ever more senders.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import gevent
from gevent.hub import Waiter

from tao2serve.loadtest.tally import Tally

__all__ = ["Schedule"]

_HELD_S = 0.001
_END_S = 0.01
_Due: TypeAlias = tuple[int, int, float]  # image, target, intended start


@dataclass(slots=True, kw_only=True)
class Schedule:
    """Sends each request when it is due; no more than `limit` are open, and those that wait for that are counted."""

    send: Callable[[int, int, float], object]
    starts_s: Iterator[float]  # ascending, on the monotonic clock; those before the end of the test
    images: Iterator[int]
    targets: Iterator[int]
    limit: int
    tally: Tally
    _next_s: float = 0.0
    _called_for: deque[_Due] = field(default_factory=deque)  # due, and a sender on its way to each
    _senders: int = 0
    _resting: list[Waiter] = field(default_factory=list)

    def keep(self) -> None:
        """Return when every request was sent and has its answer."""
        self._next_s = next(self.starts_s, math.inf)
        while self._next_s < math.inf:
            ahead_s = self._next_s - time.monotonic()
            if ahead_s > 0:
                gevent.sleep(ahead_s)
            else:
                gevent.idle()  # first whatever has arrived: who reads an answer may take what is due
            self._call_sender()
        while self._senders > len(self._resting):
            gevent.sleep(_END_S)
        while self._resting:
            self._wake(is_over=True)

    def _call_sender(self) -> None:
        if not self._resting and self._senders >= self.limit:
            gevent.sleep(_HELD_S)
        elif due := self._next_due():
            self._called_for.append(due)
            if self._resting:
                self._wake(is_over=False)
            else:
                self._senders += 1
                gevent.spawn(self._send_what_is_due)

    def _wake(self, *, is_over: bool) -> None:
        gevent.get_hub().loop.run_callback(self._resting.pop().switch, is_over)

    def _send_what_is_due(self) -> None:
        try:
            while True:
                while due := self._take():
                    self.send(*due)
                waiter = Waiter()
                self._resting.append(waiter)
                if waiter.get():
                    return
        finally:
            self._senders -= 1

    def _take(self) -> _Due | None:
        """Return the oldest request that is due, also if another sender was called for it: requests start in order."""
        if self._called_for:
            return self._called_for.popleft()
        due = self._next_due()
        if due and self._senders >= self.limit and not self._resting:
            self.tally.capped += 1  # nobody could have been called for it
        return due

    def _next_due(self) -> _Due | None:
        intended_s = self._next_s
        if intended_s > time.monotonic():
            return None
        self._next_s = next(self.starts_s, math.inf)
        return next(self.images), next(self.targets), intended_s
