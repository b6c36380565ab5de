"""A service to search the limit of: one server, a fixed service time, Poisson arrivals (M/D/1), in no real time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from loadtest_samples import record, run

from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult
from tao2serve.loadtest.records import RequestRecord
from tao2serve.loadtest.summary import summarise


@dataclass(kw_only=True)
class QueueModel:
    """Answers one request after the other, each in `service_s`; the client can send `client_rps` at most.

    `stall_in` are the numbers of the runs, from 0, in which the service stands still for 2 s.
    """

    service_s: float
    client_rps: float = math.inf
    stall_in: tuple[int, ...] = ()
    plans: list[LoadPlan] = field(default_factory=list)
    now_s: float = 0.0

    def __call__(self, plan: LoadPlan) -> LoadResult:
        number = len(self.plans)
        self.plans.append(plan)
        self.now_s += plan.warmup_s + plan.run_time_s
        stalled_s = plan.run_time_s / 2 if number in self.stall_in else math.inf
        shape = plan.shape
        if isinstance(shape, ClosedLoop):
            count = math.floor(plan.run_time_s / self.service_s)
            rows = [record(index * self.service_s, 1000 * self.service_s) for index in range(count)]
        else:
            rows = self._open(plan, shape.rate_rps, stalled_s)
        result = summarise(plan, run(rows, plan.run_time_s), cpu=(), environment={})
        saturated = not isinstance(shape, ClosedLoop) and shape.rate_rps > self.client_rps
        return replace(result, client=replace(result.client, saturated=saturated, reason="late" if saturated else ""))

    def _open(self, plan: LoadPlan, rate_rps: float, stalled_s: float) -> list[RequestRecord]:
        draw = random.Random(f"{plan.seed} {rate_rps}")
        arrival_s, free_s, rows = draw.expovariate(rate_rps), 0.0, []
        while arrival_s < plan.run_time_s:
            begin_s = max(arrival_s, free_s)
            if stalled_s <= begin_s:
                begin_s, stalled_s = begin_s + 2.0, math.inf
            free_s = begin_s + self.service_s
            rows.append(record(arrival_s, 1000 * (free_s - arrival_s)))
            arrival_s += draw.expovariate(rate_rps)
        return rows

    def clock(self) -> float:
        return self.now_s


def highest_md1_rate(service_s: float, *, quantile: float, limit_s: float) -> float:
    """Return the rate at which the quantile of waiting and service is the limit (Erlang's formula of M/D/1)."""
    return _root(
        lambda rate_rps: _waits_at_most(limit_s - service_s, rate_rps, service_s) - quantile, 0.999 / service_s
    )


def _waits_at_most(wait_s: float, rate_rps: float, service_s: float) -> float:
    terms = (
        (-rate_rps * (wait_s - k * service_s)) ** k / math.factorial(k) * math.exp(rate_rps * (wait_s - k * service_s))
        for k in range(math.floor(wait_s / service_s) + 1)
    )
    return (1 - rate_rps * service_s) * math.fsum(terms)


def _root(falling: Callable[[float], float], high: float) -> float:
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low
