"""From single requests to numbers."""

from __future__ import annotations

import math
import random

import pytest
from loadtest_samples import plan, record, result, run

from tao2serve.loadtest.summary import CpuSample, percentile, summarise


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (50, 50), (90, 90), (95, 95), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_of_the_first_hundred_numbers(percent: float, expected: float) -> None:
    """Nearest rank: of 1 … 100 the p-th percentile is p."""
    assert percentile(list(range(1, 101)), percent) == expected


def test_percentile_is_a_value_that_enough_do_not_exceed() -> None:
    """For any values it is the smallest one that at least p % of them do not exceed."""
    draw = random.Random(3)
    for _ in range(50):
        values = sorted(draw.lognormvariate(3, 1) for _ in range(draw.randint(1, 300)))
        percent = draw.choice([50.0, 90.0, 95.0, 99.0])
        found = percentile(values, percent)
        assert found in values
        assert sum(value <= found for value in values) >= len(values) * percent / 100
        assert sum(value < found for value in values) < len(values) * percent / 100


def test_percentile_of_nothing() -> None:
    """No values have no percentile."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_request_counts_where_it_started() -> None:
    """Warm-up is apart; what was still open at the end counts; throughput is of what arrived by then."""
    found = result([record(-0.5, 900), record(0.0, 10), record(5.0, 30), record(9.9, 500)])
    assert (found.requests, found.failures, found.warmup.requests) == (3, 0, 1)
    assert found.latency_ms is not None
    assert (found.latency_ms.p50, found.latency_ms.max) == (30, 500)
    assert found.warmup.latency_ms is not None
    assert found.warmup.latency_ms.max == 900
    # arrived within the run time: the one of the warm-up and two of the run, not the last
    assert found.throughput_rps == pytest.approx(0.3)


def test_failures_are_no_fast_answers() -> None:
    """Failures are counted and named, and stay out of latency and throughput."""
    failed = [record(second, 1, error="HTTP 503", detail="queue is full") for second in range(3)]
    found = result([record(4, 20), *failed, record(3.5, 10_000, error="timeout")])
    assert (found.requests, found.failures, found.successes, found.failure_ratio) == (5, 4, 1, 0.8)
    assert found.latency_ms is not None
    assert found.latency_ms.max == 20
    assert found.throughput_rps == pytest.approx(0.1)
    assert [(error.kind, error.detail, error.count) for error in found.errors] == [
        ("HTTP 503", "queue is full", 3),
        ("timeout", "", 1),
    ]


def test_many_different_texts_are_folded() -> None:
    """Beyond 20 texts failures are counted by kind; none is lost."""
    found = result([record(index / 10, 1, error="HTTP 500", detail=f"id {index}") for index in range(50)])
    assert len(found.errors) == 21
    assert found.errors[-1].detail == "other texts"
    assert sum(error.count for error in found.errors) == found.failures == 50


def test_no_request_at_all() -> None:
    """A test in which nothing came back has a result, without latency."""
    found = result([])
    assert (found.requests, found.throughput_rps, found.latency_ms, found.failure_ratio) == (0, 0, None, None)
    assert found.to_dict()["latency_ms"] == dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"))


def test_stages_keep_the_servers_order() -> None:
    """The stage outside is latency less the server's total; answers without timing are left out."""
    timing_ms = {"preprocess": 2.0, "infer": 5.0, "total": 8.0}
    found = result([record(1, 10, timing_ms=timing_ms), record(2, 14, timing_ms=timing_ms), record(3, 9)])
    assert [(stage.stage, stage.mean) for stage in found.stages] == [
        ("preprocess", 2),
        ("infer", 5),
        ("total", 8),
        ("outside", 4),
    ]


def test_the_series_covers_the_test_without_gaps() -> None:
    """One point per second from the warm-up to the end, empty seconds included."""
    found = result([record(-0.9, 10), record(0.1, 10), record(0.2, 30, error="timeout"), record(7.5, 40)])
    assert [point.start_s for point in found.series] == list(range(-1, 10))
    first, second, third = found.series[:3]
    assert (first.throughput_rps, second.throughput_rps, third.throughput_rps) == (1, 1, 0)
    assert (second.failures, second.p50_ms, third.p50_ms) == (1, 10, None)


def cpu(*ratios: float) -> list[CpuSample]:
    """Samples once per second from the start of the run time on."""
    used = [math.fsum(ratios[:count]) for count in range(len(ratios) + 1)]
    return [CpuSample(at_s=100.0 + second, used_s=value, thread_s=value) for second, value in enumerate(used)]


@pytest.mark.parametrize(
    ("ratios", "saturated", "ratio"),
    [
        ((0.95,) * 6 + (0.5,) * 4, True, 0.77),
        ((0.95,) * 4 + (0.5,) * 6, False, 0.68),
        ((0.1,) * 10, False, 0.1),
    ],
)
def test_a_client_busy_for_most_of_the_run_time_is_saturated(
    ratios: tuple[float, ...], saturated: bool, ratio: float
) -> None:
    """90 % of a core for more than half of the run time; the reason says what the numbers then are."""
    client = result([record(1, 10)], cpu=cpu(*ratios)).client
    assert client.saturated is saturated
    assert client.cpu_ratio == pytest.approx(ratio)
    assert ("not the endpoint's" in client.reason) is saturated


def test_cpu_outside_the_run_time_does_not_count() -> None:
    """Imports and warm-up may use a core; without samples inside nothing is claimed."""
    before = [CpuSample(at_s=90.0 + second, used_s=float(second), thread_s=float(second)) for second in range(10)]
    client = result([record(1, 10)], cpu=before).client
    assert (client.saturated, client.cpu_ratio) == (False, None)


def test_start_lag_is_what_the_client_added() -> None:
    """The time between a user being free and its request leaving is reported, in milliseconds."""
    client = result([record(1, 10, lag_s=0.004)]).client
    assert client.start_lag_p99_ms == pytest.approx(4)


def test_short_runs_have_shorter_intervals() -> None:
    """Below 10 s a point is half a second, and a last interval that is cut short is not underrated."""
    records = [record(index / 100, 5) for index in range(120)]
    found = summarise(plan(1.2, 0), run(records, 1.2), cpu=(), environment={})
    assert [point.start_s for point in found.series] == [0, 0.5, 1]
    assert found.series[-1].throughput_rps == pytest.approx(100, rel=0.05)
