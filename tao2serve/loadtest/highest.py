"""The highest rate that holds an SLO: which rate to try next, and what may be claimed in the end.

A p99 of some hundred requests is a matter of luck near the limit, so no rate is judged by one run of it alone:
one that seems to hold has to hold again before it is the answer, one that seems to miss is tried again (unless the
answers fell behind the requests, which is no luck), and two of three runs decide. Each run has a seed of its own: with
one seed all would have the same arrivals but for their scale, and the same luck.

The p99 of ten requests is their maximum: a rate is confirmed by as many answers as make 95 % sure of a percentile that
none of them is beyond, 299 for a p99. Runs at low rates are as long as that takes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tao2serve.errors import UsageError
from tao2serve.loadtest.confidence import confidence_in_bursts, requests_for
from tao2serve.loadtest.gates import Gate, shortfall
from tao2serve.loadtest.plan import Arrivals, ClosedLoop, LoadPlan, OpenLoop
from tao2serve.loadtest.series import HighestRate, LoadSeries, SeriesRun, judged
from tao2serve.loadtest.sweep import OnRun, RunOnce

__all__ = ["BUDGET_S", "WITHIN", "Trial", "find_max", "highest_of", "next_rate", "require_gates"]

WITHIN: Final = 0.05
BUDGET_S: Final = 1800.0
_GROWTH: Final = 2.0
_DOUBLINGS: Final = 12  # up or down from the first rate, by a factor of 4,096
_FIRST_LOOK_S: Final = 5.0
_SURE: Final = 0.95
_SPARE: Final = 1.25  # arrivals are drawn, and some answers fail
_LONGEST: Final = 0.25  # of the time for the search, for one run
_NO_TIME: Final = "The time for the search was over before it was done; give it more: --search-time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the runs at one rate say."""

    rate_rps: float
    held: int
    missed: int
    fell_behind: bool = False  # in one of them the answers fell behind the requests
    is_enough: bool = True  # the answers of those that held are enough to say something of the percentiles

    @property
    def fails(self) -> bool:
        return self.fell_behind or self.missed >= 2

    @property
    def holds(self) -> bool:
        """For now; one run is enough to try a higher rate, not to be the answer."""
        return not self.fails and self.held > self.missed

    @property
    def confirmed(self) -> bool:
        return self.holds and self.held >= 2 and self.is_enough


def next_rate(trials: Sequence[Trial], *, start_rps: float, within: float) -> float | None:
    """Return the rate to try next, None when the answer is found: doubling, then bisection of the ratio.

    The answer is found when the highest confirmed rate and the lowest that fails are within `within` of each other.
    """
    for trial in trials:
        if not trial.holds and not trial.fails:
            return trial.rate_rps
    if not trials:
        return start_rps
    low, high = _bracket(trials)
    if low is None:
        lowest = min(trial.rate_rps for trial in trials)
        return None if lowest < start_rps / _GROWTH**_DOUBLINGS else _rounded(lowest / _GROWTH)
    if high is None:
        if low.rate_rps < start_rps * _GROWTH**_DOUBLINGS:
            return _rounded(low.rate_rps * _GROWTH)
    elif high.rate_rps > low.rate_rps * (1 + within):
        middle = _rounded(math.sqrt(low.rate_rps * high.rate_rps))
        if low.rate_rps < middle < high.rate_rps:
            return middle
    return None if low.confirmed else low.rate_rps


def _bracket(trials: Sequence[Trial]) -> tuple[Trial | None, Trial | None]:
    """Return the highest trial that holds below all that fail, and the lowest that fails."""
    high = min((trial for trial in trials if trial.fails), key=lambda trial: trial.rate_rps, default=None)
    below = [trial for trial in trials if trial.holds and (high is None or trial.rate_rps < high.rate_rps)]
    return max(below, key=lambda trial: trial.rate_rps, default=None), high


def _rounded(rate_rps: float) -> float:
    """Four digits, so that a rate can be said and typed."""
    return float(f"{rate_rps:.4g}")


def find_max(
    plan: LoadPlan,
    gates: Sequence[Gate],
    *,
    run: RunOnce,
    start_rps: float | None = None,
    arrivals: Arrivals = "poisson",
    within: float = WITHIN,
    budget_s: float = BUDGET_S,
    on_run: OnRun | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LoadSeries:
    """Search the highest rate of an open loop at which a run of the plan passes all gates.

    A rate holds only if the client was not saturated and the rate was really offered. Without `start_rps` a short
    run of one user, which is not among those returned, says where to begin. No run begins that would probably end
    after `budget_s`; the last ones go to confirming what was found. `on_run` is told of each run as soon as it has
    ended. A run is longer than the plan says where two of them would else have too few requests for the percentiles
    of the gates, up to a quarter of `budget_s`; without enough of them a rate is not confirmed. Raises UsageError
    for gates that make no sense of a rate, and what `run` raises.
    """
    require_gates(gates)
    begun_s = clock()
    first_rps = _first_rate(plan, run) if start_rps is None else start_rps
    runs: list[SeriesRun] = []
    in_time = True

    def each_s(rate_rps: float) -> float:
        """How long a run at that rate takes: what it sends for, and what those before took besides."""
        said_s = sum(run.result.plan.warmup_s + run.result.plan.run_time_s for run in runs)
        besides_s = max(clock() - begun_s - said_s, 0.0) / (len(runs) + (start_rps is None)) if runs else 0.0
        return plan.warmup_s + _run_time_s(plan, rate_rps, gates, budget_s) + besides_s

    while (rate_rps := next_rate(_trials(runs, gates), start_rps=first_rps, within=within)) is not None:
        left_s = budget_s - (clock() - begun_s)
        if in_time and runs and left_s < 2 * each_s(rate_rps):
            in_time = False
        if not in_time:
            best, _ = _bracket(_trials(runs, gates))
            if best is None or best.confirmed or left_s < each_s(best.rate_rps):
                break
            rate_rps = best.rate_rps
        tried = replace(plan, run_time_s=_run_time_s(plan, rate_rps, gates, budget_s), seed=plan.seed + len(runs))
        shape = OpenLoop(rate_rps=rate_rps, arrivals=arrivals)
        runs.append(judged(run(replace(tried, shape=shape)), gates))
        if on_run is not None:
            on_run(runs[-1])
    return LoadSeries(runs=tuple(runs), highest=highest_of(runs, gates, ended="" if in_time else _NO_TIME))


def _needed(gates: Sequence[Gate]) -> int:
    """Return how many answers the percentiles of the gates take, 0 without any."""
    quantiles = [gate.quantile for gate in gates if gate.quantile is not None]
    return max((requests_for(_SURE, quantile=quantile) for quantile in quantiles), default=0)


def _run_time_s(plan: LoadPlan, rate_rps: float, gates: Sequence[Gate], budget_s: float) -> float:
    """Long enough that two runs have the answers that are needed, in whole seconds."""
    needed_s = math.ceil(_SPARE * _needed(gates) / 2 / rate_rps)
    return max(plan.run_time_s, min(needed_s, _LONGEST * budget_s - plan.warmup_s))


def require_gates(gates: Sequence[Gate]) -> None:
    """Raise UsageError unless there is a limit of latency, and none of throughput."""
    if not any(gate.unit == "ms" for gate in gates):
        raise UsageError("--find-max", "needs a limit of latency", hint="--slo p99=50ms")
    if any(gate.metric == "throughput" for gate in gates):
        raise UsageError("--find-max", "searches the throughput itself", hint="leave --slo throughput=… out")


def _first_rate(plan: LoadPlan, run: RunOnce) -> float:
    """Half of what one user gets who waits for each answer: a rate that leaves the service time to spare."""
    look = run(replace(plan, shape=ClosedLoop(users=1), run_time_s=min(plan.run_time_s, _FIRST_LOOK_S)))
    return _rounded(look.throughput_rps / 2) if look.successes else 1.0


def _rate(run: SeriesRun) -> float:
    shape = run.result.plan.shape
    assert isinstance(shape, OpenLoop)
    return shape.rate_rps


def _trials(runs: Sequence[SeriesRun], gates: Sequence[Gate]) -> tuple[Trial, ...]:
    """Return the rates that were tried, ascending."""
    ascending = sorted(runs, key=_rate)
    needed = _needed(gates)
    return tuple(_trial(rate_rps, tuple(group), needed) for rate_rps, group in itertools.groupby(ascending, key=_rate))


def _trial(rate_rps: float, runs: Sequence[SeriesRun], needed: int) -> Trial:
    return Trial(
        rate_rps=rate_rps,
        held=sum(run.passed for run in runs),
        missed=sum(not run.passed for run in runs),
        fell_behind=any(not run.passed and _fell_behind(run) for run in runs),
        is_enough=sum(run.result.successes for run in runs if run.passed) >= needed,
    )


def _fell_behind(run: SeriesRun) -> bool:
    """Whether it was the service that fell behind the requests."""
    return not _is_of_client(run) and run.result.fell_behind


def highest_of(runs: Sequence[SeriesRun], gates: Sequence[Gate], *, ended: str = "") -> HighestRate:
    """Return what the runs of a search say; `ended` is a sentence of why there are no more of them."""
    low, high = _bracket(_trials(runs, gates))
    low_runs = [run for run in runs if low is not None and _rate(run) == low.rate_rps]
    high_runs = [run for run in runs if high is not None and _rate(run) == high.rate_rps]
    of_client = any(not run.passed and _is_of_client(run) for run in high_runs)
    found = _base(low_runs, gates) if low is not None else _nothing(runs, is_failed=high is not None)
    sentences = [found, _bound(low, high, of_client), ended]
    return HighestRate(
        gates=tuple(gates),
        holds_rps=low.rate_rps if low is not None else None,
        fails_rps=high.rate_rps if high is not None and not of_client else None,
        confidence=". ".join(filter(None, sentences)) + ".",
        confirmed=low is not None and low.confirmed,
    )


def _is_of_client(run: SeriesRun) -> bool:
    """Whether the load generator was the limit, so that the run says nothing of the service."""
    return run.result.client.saturated or bool(shortfall(run.result))


def _nothing(runs: Sequence[SeriesRun], *, is_failed: bool) -> str:
    if all(map(_is_of_client, runs)):
        times = "the only run" if len(runs) == 1 else f"all {len(runs)} runs"
        return f"The load generator was the limit in {times}, so nothing is known of the endpoint"
    lowest = f"{min(map(_rate, runs)):g} requests/s"
    return f"No rate held, down to {lowest}" if is_failed else f"No rate held; {lowest} missed once, maybe by chance"


def _base(runs: Sequence[SeriesRun], gates: Sequence[Gate]) -> str:
    """Say how often the rate was held, by how many requests, and what those say of each percentile."""
    held = sum(run.passed for run in runs)
    requests = sum(run.result.successes for run in runs)
    times = f"{_rate(runs[0]):g} requests/s held in {held} of {len(runs)} run{'' if len(runs) == 1 else 's'}"
    said = [f"{times} with {requests} answers together"]
    for gate in gates:
        late = [verdict.late for run in runs for verdict in run.verdicts if verdict.gate == gate]
        if gate.quantile is None or None in late or not requests:
            continue
        sizes = tuple(size for of_run in late for size in of_run or ())
        sure = confidence_in_bursts(requests, sizes, quantile=gate.quantile)
        said.append(
            f"{sum(sizes)} of them beyond {gate.limit:g} ms, in {len(sizes)} burst{'' if len(sizes) == 1 else 's'}, "
            f"which makes it at most {_percent(sure)} sure that the true {gate.metric} is within it"
        )
    if len(runs) == 1:
        said.append("it was not confirmed by a second run")
    if requests < (needed := _needed(gates)):
        said.append(f"that are too few to confirm it: it takes {needed} for the percentiles that were asked for")
    return "; ".join(said)


def _percent(ratio: float) -> str:
    """Rounded down: 99.96 % is not 100 %."""
    return f"{math.floor(1000 * ratio) / 10:g} %"


def _bound(low: Trial | None, high: Trial | None, of_client: bool) -> str:
    if high is None:
        return "" if low is None else "No higher rate was tried"
    if of_client:
        return (
            f"At {high.rate_rps:g} requests/s the load generator was the limit, so a higher rate may hold: "
            "try more --processes, or another machine"
        )
    if low is None:
        return ""
    return f"{high.rate_rps:g} requests/s did not hold, {100 * (high.rate_rps / low.rate_rps - 1):.1f} % more"
