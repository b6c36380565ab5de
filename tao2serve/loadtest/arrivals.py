"""When the requests of an open loop are to start, decided before any of them does; pure and seeded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from tao2serve.loadtest.plan import OpenLoop

__all__ = ["arrivals"]


def arrivals(shape: OpenLoop, *, seed: int, process: int = 0, processes: int = 1) -> Iterator[float]:
    """Yield without end the seconds, counted from the begin, at which one of `processes` is to send a request.

    All processes together make the rate. Poisson: each draws its own part, since independent Poisson arrivals
    add up to Poisson arrivals. Constant: each takes every `processes`-th arrival, so together they are evenly
    spaced. The same arguments give the same seconds.
    """
    if shape.arrivals == "constant":
        # multiplied and not added up: no rounding error grows with the length of a test
        return (number / shape.rate_rps for number in itertools.count(process, processes))
    return _poisson(shape.rate_rps / processes, random.Random(f"arrivals/{seed}/{process}"))  # noqa: S311


def _poisson(rate_rps: float, draw: random.Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += draw.expovariate(rate_rps)
        yield at_s
