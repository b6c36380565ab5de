"""Cost per 1,000 images."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loadtest_samples import record, result

from tao2serve.errors import UsageError
from tao2serve.loadtest import OpenLoop
from tao2serve.loadtest.cost import cost_of


def test_cost_is_the_price_over_the_successful_answers() -> None:
    """36 answers per second at 1.296 per hour are 129,600 images, so 0.01 per 1,000; failures earn nothing."""
    found = result([record(index / 36, 5) for index in range(360)] + [record(1, 2, error="timeout")] * 100)
    cost = cost_of(found, price_per_hour=1.296)
    assert cost is not None
    assert cost.per_1000_images == pytest.approx(0.01)
    assert cost.to_dict()["throughput_rps"] == 36
    assert "more users may reach more" in cost.basis


def test_an_open_loop_says_that_capacity_may_be_higher() -> None:
    """At an offered rate the cost is that of this rate, not of what serves at its limit."""
    found = result([record(index / 10, 5) for index in range(100)])
    cost = cost_of(replace(found, plan=replace(found.plan, shape=OpenLoop(rate_rps=10))), price_per_hour=1)
    assert cost is not None
    assert "capacity may be higher" in cost.basis


def test_no_answers_have_no_cost() -> None:
    """Nothing is divided by zero."""
    assert cost_of(result([record(1, 5, error="timeout")]), price_per_hour=1) is None


@pytest.mark.parametrize("price", [0, -1, float("inf"), float("nan")])
def test_what_is_no_price(price: float) -> None:
    """A price is more than nothing."""
    with pytest.raises(UsageError, match="price"):
        cost_of(result([record(1, 5)]), price_per_hour=price)
