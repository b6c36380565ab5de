"""How well a process that sends is itself."""

from __future__ import annotations

import time

import gevent

from tao2serve.loadtest.tally import Tally

__all__ = ["watch_itself"]

_PROBE_S, _PROBES = 0.02, 12  # how often it looks whether it wakes in time, and how many of those make a sample


def watch_itself(tally: Tally) -> None:
    """Note four times a second what CPU this process used, and by how much it overslept, until the tally ends."""
    tally.sample([])
    while not tally.finished:
        late_ms = []
        for _ in range(_PROBES):
            due_s = time.monotonic() + _PROBE_S
            gevent.sleep(_PROBE_S)
            late_ms.append((time.monotonic() - due_s) * 1000)
        tally.sample(late_ms)
