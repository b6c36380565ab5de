"""The search for the highest rate, against a queue whose limit is known by theory."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from loadtest_samples import plan
from queue_model import QueueModel, highest_md1_rate

from tao2serve.errors import UsageError
from tao2serve.loadtest import LoadResult, OpenLoop, parse_gate
from tao2serve.loadtest.highest import Trial, find_max, highest_of, next_rate
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.series import HighestRate, LoadSeries, SeriesRun, judged

P99 = parse_gate("p99=50ms")
PLAN = plan(run_time_s=60, warmup_s=2)


def highest(series: LoadSeries) -> HighestRate:
    assert series.highest is not None
    return series.highest


def rates(series: LoadSeries) -> list[float]:
    return [shape.rate_rps for run in series.runs if isinstance(shape := run.result.plan.shape, OpenLoop)]


def test_theory_and_model_agree() -> None:
    """At the rate that Erlang's formula gives, half an hour of the model has its p99 at the limit."""
    limit_rps = highest_md1_rate(0.010, quantile=0.99, limit_s=0.050)
    long = replace(plan(run_time_s=1800), shape=OpenLoop(rate_rps=limit_rps))
    latency_ms = QueueModel(service_s=0.010)(long).latency_ms
    assert latency_ms is not None
    assert latency_ms.p99 == pytest.approx(50, rel=0.04)


@pytest.mark.parametrize("seed", range(1, 6))
def test_it_finds_what_theory_says(seed: int) -> None:
    """10 ms a request, p99 of 50 ms: M/D/1 gives the rate; a search of minutes finds it within 15 %."""
    limit_rps = highest_md1_rate(0.010, quantile=0.99, limit_s=0.050)
    found = highest(find_max(replace(PLAN, seed=100 * seed), [P99], run=QueueModel(service_s=0.010)))
    assert found.holds_rps is not None
    assert found.fails_rps is not None
    assert found.holds_rps < found.fails_rps <= found.holds_rps * 1.0501
    assert found.holds_rps == pytest.approx(limit_rps, rel=0.15)
    assert found.confirmed


def test_the_answer_held_twice_with_other_arrivals() -> None:
    """Its runs have seeds of their own, most of them pass, and one of them stands for the series."""
    series = find_max(PLAN, [P99], run=QueueModel(service_s=0.010))
    at_answer = [
        run for run in series.runs if run.result.plan.shape == OpenLoop(rate_rps=highest(series).holds_rps or 0)
    ]
    assert sum(run.passed for run in at_answer) >= 2
    assert len({run.result.plan.seed for run in at_answer}) == len(at_answer)
    assert series.runs[series.decisive] in at_answer
    assert series.runs[series.decisive].passed
    assert series.passed


def test_the_confidence_counts_the_requests_at_that_rate() -> None:
    """It names rate, runs, answers and those beyond the limit, as they are in the records."""
    series = find_max(PLAN, [P99], run=QueueModel(service_s=0.010))
    found = highest(series)
    at_answer = [run for run in series.runs if run.result.plan.shape == OpenLoop(rate_rps=found.holds_rps or 0)]
    answers = sum(run.result.successes for run in at_answer)
    beyond = sum(record.latency_ms > 50 for run in at_answer for record in run.result.records)
    assert f"with {answers} answers together; {beyond} of them beyond 50 ms" in found.confidence
    sure = re.search(r"makes it at most ([\d.]+) % sure that the true p99", found.confidence)
    assert sure is not None
    assert 0 <= float(sure[1]) <= 100


def test_a_stall_by_chance_does_not_end_the_search() -> None:
    """Runs in which the service stood still are repeated; two of three decide."""
    quiet = highest(find_max(PLAN, [P99], run=QueueModel(service_s=0.010), start_rps=10))
    for stalled in ((1,), (0, 3), (2,)):
        series = find_max(PLAN, [P99], run=QueueModel(service_s=0.010, stall_in=stalled), start_rps=10)
        assert highest(series).holds_rps == pytest.approx(quiet.holds_rps, rel=0.1)
        assert not all(run.passed for run in series.runs)


def test_an_overload_is_not_tried_again() -> None:
    """Where the answers fall behind, one run is enough, and no run is wasted."""
    series = find_max(PLAN, [P99], run=QueueModel(service_s=0.010), start_rps=400)
    assert rates(series).count(400) == rates(series).count(200) == 1
    assert highest(series).holds_rps == pytest.approx(56, rel=0.2)


def test_a_saturated_client_is_no_limit_of_the_service() -> None:
    """The search ends below what the client can send, and says so; no rate is said to fail."""
    found = highest(find_max(PLAN, [P99], run=QueueModel(service_s=0.010, client_rps=30), start_rps=10))
    assert found.holds_rps is not None
    assert found.holds_rps <= 30 < found.holds_rps * 1.06
    assert found.fails_rps is None
    assert "load generator was the limit" in found.confidence


def test_a_rate_that_was_not_offered_does_not_hold() -> None:
    """However good its latencies: a fifth fewer requests than the rate says is another rate."""
    model = QueueModel(service_s=0.001)

    def lazy(asked: LoadPlan) -> LoadResult:
        shape = asked.shape
        assert isinstance(shape, OpenLoop)
        sent = replace(asked, shape=replace(shape, rate_rps=min(shape.rate_rps, 40.0)))
        return replace(model(sent), plan=asked)

    found = highest(find_max(PLAN, [P99], run=lazy, start_rps=10))
    assert found.holds_rps is not None
    assert found.holds_rps < 48
    assert found.fails_rps is None


def test_a_handful_of_requests_confirms_nothing() -> None:
    """49 ms a request, p99 of 50 ms: what holds is below 1/s, and is claimed by 299 answers and more, not by 30."""
    model = QueueModel(service_s=0.049)
    series = find_max(plan(run_time_s=20, warmup_s=0), [P99], run=model, start_rps=20, budget_s=20_000)
    found = highest(series)
    assert found.holds_rps is not None
    held = [
        run.result for run in series.runs if run.passed and run.result.plan.shape == OpenLoop(rate_rps=found.holds_rps)
    ]
    assert sum(result.successes for result in held) >= 299
    assert found.confirmed
    assert series.passed
    assert model.plans[0].run_time_s == 20, "at rates that have requests enough a run is as long as it was asked for"


def test_without_time_for_enough_requests_nothing_is_confirmed() -> None:
    """4 minutes from 0.5/s on: what was found is said, that it rests on too few answers too, and it does not pass."""
    model = QueueModel(service_s=0.010)
    series = find_max(plan(run_time_s=5, warmup_s=0), [P99], run=model, start_rps=0.5, budget_s=240, clock=model.clock)
    found = highest(series)
    assert model.now_s <= 240
    assert found.holds_rps is not None
    assert not found.confirmed
    assert "too few to confirm it: it takes 299" in found.confidence
    assert not series.passed


def test_where_nothing_holds_it_says_so() -> None:
    """A limit below the service time is missed at every rate: the search ends, and the series does not pass."""
    series = find_max(plan(run_time_s=100, warmup_s=0), [parse_gate("p50=5ms")], run=QueueModel(service_s=0.01))
    assert highest(series).holds_rps is None
    assert "No rate held, down to" in highest(series).confidence
    assert highest(series).finding == "no rate that was tried holds p50=5ms"
    assert not series.passed
    assert rates(series)[series.decisive] == min(rates(series))


@pytest.mark.parametrize("runs", [1, 2, 4, 7, 9])
def test_the_time_for_the_search_is_kept(runs: int) -> None:
    """No run begins that would end after it, and the last one confirms what was found."""
    model = QueueModel(service_s=0.010)
    series = find_max(PLAN, [P99], run=model, start_rps=10, budget_s=runs * 62.0 + 1, clock=model.clock)
    assert model.now_s <= runs * 62.0 + 1
    assert len(series.runs) <= runs
    found = highest(series)
    assert "--search-time" in found.confidence
    assert found.holds_rps is not None
    if runs > 1:
        assert found.confirmed
    else:
        assert "not confirmed by a second run" in found.confidence


def test_an_interrupted_search_has_told_of_every_run() -> None:
    """Each run is handed over as it ends, so what was measured is kept."""
    model, told = QueueModel(service_s=0.010), list[SeriesRun]()

    def run(asked: LoadPlan) -> LoadResult:
        if len(model.plans) == 3:
            raise KeyboardInterrupt
        return model(asked)

    with pytest.raises(KeyboardInterrupt):
        find_max(PLAN, [P99], run=run, start_rps=10, on_run=told.append)
    assert [each.result.plan.shape for each in told] == [OpenLoop(rate_rps=rate) for rate in (10, 20, 40)]


@pytest.mark.parametrize("gates", [[], ["failure-ratio=1%"], ["p99=50ms", "throughput=10rps"]])
def test_gates_that_make_no_sense_of_a_rate_are_refused(gates: list[str]) -> None:
    """Before anything is sent: a search needs a limit of latency, and finds the throughput itself."""
    model = QueueModel(service_s=0.010)
    with pytest.raises(UsageError, match="--find-max"):
        find_max(PLAN, [parse_gate(text) for text in gates], run=model)
    assert not model.plans


def test_which_rate_is_next() -> None:
    """Doubling to a bracket, its geometric middle, a second opinion where there is doubt, the answer confirmed."""

    def trials(**held_missed: tuple[int, int]) -> list[Trial]:
        return [
            Trial(rate_rps=float(name.removeprefix("r")), held=held, missed=missed)
            for name, (held, missed) in held_missed.items()
        ]

    def following(**held_missed: tuple[int, int]) -> float | None:
        return next_rate(trials(**held_missed), start_rps=10, within=0.05)

    assert following() == 10
    assert following(r10=(1, 0)) == 20
    assert following(r10=(0, 1)) == 10  # once more
    assert following(r10=(1, 1)) == 10  # the third decides
    assert following(r10=(0, 2)) == 5
    assert following(r10=(1, 0), r40=(0, 2)) == 20
    assert following(r40=(1, 0), r42=(0, 2)) == 40  # the answer, if it holds again
    assert following(r40=(2, 0), r42=(0, 2)) is None
    assert following(r40=(1, 1), r42=(0, 2)) == 40
    assert following(r40=(2, 1), r42=(0, 2)) is None
    assert following(r20=(1, 0), r40=(1, 2), r42=(0, 2)) == 28.28
    assert next_rate([Trial(rate_rps=10, held=0, missed=1, fell_behind=True)], start_rps=10, within=0.05) == 5


def test_a_client_that_was_the_limit_says_nothing_of_the_endpoint() -> None:
    """Of a search whose runs were all limited by the load generator no rate is said to hold, and none to fail."""
    one = QueueModel(service_s=0.010)(replace(plan(), shape=OpenLoop(rate_rps=20)))
    limited = replace(one, client=replace(one.client, saturated=True, reason="it was busy"))
    for count, times in ((1, "the only run"), (2, "all 2 runs")):
        found = highest_of([judged(limited, [P99])] * count, [P99], ended="The time was over")
        assert (found.holds_rps, found.fails_rps) == (None, None)
        assert found.finding == "the highest rate that holds p99=50ms was not found"
        assert found.confidence.startswith(f"The load generator was the limit in {times}, so nothing is known")


def test_one_miss_may_be_chance() -> None:
    """A rate that missed once, before the time was over, is not said to fail."""
    slow = QueueModel(service_s=0.060)(replace(plan(), shape=OpenLoop(rate_rps=1)))
    found = highest_of([judged(slow, [P99])], [P99], ended="The time was over")
    assert (found.holds_rps, found.fails_rps) == (None, None)
    assert found.confidence == "No rate held; 1 requests/s missed once, maybe by chance. The time was over."
