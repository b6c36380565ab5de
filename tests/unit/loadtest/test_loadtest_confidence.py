"""The bound on a true percentile, against numbers worked out by other means."""

from __future__ import annotations

import math
import random

import pytest

from tao2serve.loadtest.confidence import bursts, confidence_below, confidence_in_bursts, requests_for


@pytest.mark.parametrize("requests", [1, 10, 299, 1000])
def test_nothing_beyond_the_limit_is_a_power(requests: int) -> None:
    """With none beyond it, the confidence is 1 - q^n."""
    assert confidence_below(requests, 0, quantile=0.99) == pytest.approx(1 - 0.99**requests)


@pytest.mark.parametrize(("requests", "beyond", "quantile"), [(50, 3, 0.9), (400, 4, 0.99), (2000, 25, 0.99)])
def test_it_is_the_binomial_sum(requests: int, beyond: int, quantile: float) -> None:
    """Against the sum with whole binomial coefficients."""
    tail = sum(math.comb(requests, k) * (1 - quantile) ** k * quantile ** (requests - k) for k in range(beyond + 1))
    assert confidence_below(requests, beyond, quantile=quantile) == pytest.approx(1 - tail, abs=1e-9)


def test_299_requests_make_95_percent_of_p99() -> None:
    """The number that the tables have, and one less is not enough; of p90 it is 29."""
    assert requests_for(0.95, quantile=0.99) == 299
    assert confidence_below(299, 0, quantile=0.99) >= 0.95 > confidence_below(298, 0, quantile=0.99)
    assert requests_for(0.95, quantile=0.9) == 29


def test_a_claim_is_wrong_as_seldom_as_it_says() -> None:
    """Where the true p90 is just above the limit, 90 % confidence is reached in at most a tenth of the tests."""
    draw = random.Random(5)
    wrong = 0
    for _ in range(2000):
        beyond = sum(draw.random() < 0.1 for _ in range(200))
        wrong += confidence_below(200, beyond, quantile=0.9) >= 0.9
    assert wrong / 2000 <= 0.12


def test_a_million_requests_underflow_nothing() -> None:
    """Probabilities far below the smallest float sum up all the same."""
    assert confidence_below(1_000_000, 9_000, quantile=0.99) == pytest.approx(1.0)
    assert confidence_below(1_000_000, 11_000, quantile=0.99) == pytest.approx(0.0, abs=1e-9)


def test_nonsense_is_refused() -> None:
    """More beyond than there were, or a quantile of 1."""
    with pytest.raises(ValueError, match="beyond"):
        confidence_below(5, 6, quantile=0.5)
    with pytest.raises(ValueError, match="beyond"):
        confidence_below(5, 1, quantile=1.0)


def test_a_burst_is_late_requests_in_a_row() -> None:
    """Its size is how many; one that is in time ends it."""
    assert bursts([]) == bursts([False, False]) == ()
    assert bursts([True, False, True, True, False, True]) == (1, 2, 1)


def test_bursts_make_less_sure() -> None:
    """Late requests one by one leave the exact bound; the same number in bursts says less of the percentile."""
    alone = confidence_in_bursts(2000, (1,) * 10, quantile=0.99)
    assert alone == pytest.approx(confidence_below(2000, 10, quantile=0.99))
    assert (
        alone > confidence_in_bursts(2000, (2,) * 5, quantile=0.99) > confidence_in_bursts(2000, (10,), quantile=0.99)
    )
    assert confidence_in_bursts(5, (5,), quantile=0.99) == pytest.approx(0)
