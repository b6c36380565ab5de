"""How sure a measured percentile makes one of the percentile itself: the exact order-statistic bound."""

from __future__ import annotations

import math

__all__ = ["confidence_below", "requests_for"]


def confidence_below(requests: int, beyond: int, *, quantile: float) -> float:
    """Return the confidence, 0 to 1, that the true quantile is at most a limit that `beyond` of `requests` exceeded.

    If the true quantile lay above the limit, each request would exceed it with a probability of 1 - quantile or
    more, and so few would in at most 1 - confidence of all tests (binomial, without approximation). It takes the
    requests for independent; those that waited in one queue are not, so it is the most one may claim.
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
