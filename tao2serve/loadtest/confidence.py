"""How sure a measured percentile makes one of the percentile itself: the exact order-statistic bound.

It holds for independent requests. Those behind one another in a queue are not: where one is late its neighbours are,
so a run has fewer independent requests than answers. `confidence_in_bursts` counts a burst of late ones by its size;
docs/loadtest.md says how far that goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["bursts", "confidence_below", "confidence_in_bursts", "requests_for"]


def bursts(late: Iterable[bool]) -> tuple[int, ...]:
    """Return the sizes of the bursts of late requests: neighbours in the order in which they were to start."""
    sizes: list[int] = []
    was_late = False
    for is_late in late:
        if is_late and was_late:
            sizes[-1] += 1
        elif is_late:
            sizes.append(1)
        was_late = is_late
    return tuple(sizes)


def confidence_in_bursts(requests: int, late: Sequence[int], *, quantile: float) -> float:
    """Return the confidence as `confidence_below` does, for late requests that came in bursts of such sizes.

    Requests and late ones are divided by the mean size of the burst that a late request is in (the design effect of
    a sample in clusters). Bursts of 1 leave the exact bound.
    """
    beyond = sum(late)
    size = sum(count * count for count in late) / beyond if beyond else 1.0
    independent = max(round(requests / size), 1)
    return confidence_below(independent, min(round(beyond / size), independent), quantile=quantile)


def confidence_below(requests: int, beyond: int, *, quantile: float) -> float:
    """Return the confidence, 0 to 1, that the true quantile is at most a limit that `beyond` of `requests` exceeded.

    If the true quantile lay above the limit, each request would exceed it with a probability of 1 - quantile or
    more, and so few would in at most 1 - confidence of all tests (binomial, without approximation).
    """
    if not 0 <= beyond <= requests or not 0 < quantile < 1:
        raise ValueError(f"{beyond} of {requests} beyond quantile {quantile}")
    return max(0.0, 1.0 - _at_most(beyond, requests, 1.0 - quantile))


def requests_for(confidence: float, *, quantile: float) -> int:
    """Return how many requests it takes, none of them beyond the limit, to be that sure."""
    return math.ceil(math.log(1.0 - confidence) / math.log(quantile) - 1e-9)


def _at_most(successes: int, trials: int, probability: float) -> float:
    """Return the binomial probability of at most so many, by its logarithms: the terms themselves would underflow."""
    log_p, log_q = math.log(probability), math.log1p(-probability)
    whole = math.lgamma(trials + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q)
        for k in range(successes + 1)
    )
    return math.fsum(terms)
