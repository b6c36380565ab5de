"""From single requests to a result; pure, so that every number in a report can be tested."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tao2serve.loadtest.machine import MachineSample
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.records import CpuSample, RequestRecord, RunRecords
from tao2serve.loadtest.result import (
    ErrorKind,
    LatencySummary,
    LoadResult,
    SeriesPoint,
    StageTiming,
    WarmupSummary,
)
from tao2serve.loadtest.saturation import client_load
from tao2serve.loadtest.servers import ServerSide
from tao2serve.loadtest.window import phase_of

__all__ = ["OUTSIDE", "CpuSample", "percentile", "summarise"]

_ERRORS_SHOWN = 20
OUTSIDE = "outside"


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Return the percentile by nearest rank: the smallest value that at least `percent` % do not exceed.

    Below 100 values the 99th is therefore the largest. Raises ValueError if there is no value.
    """
    if not ascending:
        raise ValueError("no values")
    rank = math.ceil(len(ascending) * percent / 100)
    return ascending[max(rank, 1) - 1]


def summarise(
    plan: LoadPlan,
    run: RunRecords,
    *,
    cpu: Sequence[CpuSample],
    environment: Mapping[str, str],
    machine: Sequence[MachineSample] = (),
    log: Path | None = None,
    server: ServerSide | None = None,
) -> LoadResult:
    """Return the result of a run; see LoadResult for what each number counts."""
    measured = [record for record in run.requests if phase_of(plan, record) == "run"]
    warmup = [record for record in run.requests if phase_of(plan, record) == "warmup"]
    latency = _response_ms if plan.is_open else _service_ms
    answered = sum(1 for record in run.requests if record.ok and 0 <= record.end_s < run.run_time_s)
    interval_s = 1.0 if run.run_time_s >= 10 else 0.5
    return LoadResult(
        plan=plan,
        started_at=datetime.fromtimestamp(run.started_at, tz=UTC),
        requests=len(measured),
        failures=_failures(measured),
        throughput_rps=answered / run.run_time_s,
        latency_ms=_latency(measured, latency),
        service_ms=_latency(measured, _service_ms),
        warmup=WarmupSummary(requests=len(warmup), failures=_failures(warmup), latency_ms=_latency(warmup, latency)),
        client=client_load(plan, run, measured, cpu=cpu, machine=machine),
        errors=_errors(measured),
        stages=_stages(measured),
        interval_s=interval_s,
        series=_series(run, interval_s, latency),
        environment={"locust": run.locust, "python": run.python, **environment},
        records=tuple(sorted(run.requests, key=lambda record: record.start_s)),
        log=log,
        server=server,
    )


def _failures(records: Iterable[RequestRecord]) -> int:
    return sum(1 for record in records if not record.ok)


def _service_ms(record: RequestRecord) -> float:
    return record.latency_ms


def _response_ms(record: RequestRecord) -> float:
    return record.response_ms


def _latency(records: Iterable[RequestRecord], latency: Callable[[RequestRecord], float]) -> LatencySummary | None:
    ascending = sorted(latency(record) for record in records if record.ok)
    if not ascending:
        return None
    return LatencySummary(
        p50=percentile(ascending, 50),
        p90=percentile(ascending, 90),
        p95=percentile(ascending, 95),
        p99=percentile(ascending, 99),
        max=ascending[-1],
        mean=math.fsum(ascending) / len(ascending),
    )


def _errors(records: Iterable[RequestRecord]) -> tuple[ErrorKind, ...]:
    """Count failures by kind and text, most frequent first; texts beyond the first 20 are folded by kind."""
    counts = Counter((record.error, record.detail) for record in records if not record.ok).most_common()
    rest: Counter[str] = Counter()
    for (kind, _), count in counts[_ERRORS_SHOWN:]:
        rest[kind] += count
    return tuple(
        [ErrorKind(kind=kind, detail=detail, count=count) for (kind, detail), count in counts[:_ERRORS_SHOWN]]
        + [ErrorKind(kind=kind, detail="other texts", count=count) for kind, count in rest.most_common()]
    )


def _stages(records: Iterable[RequestRecord]) -> tuple[StageTiming, ...]:
    """Return the server's stages in its own order, then what happened outside the server."""
    timed = [record for record in records if record.ok and record.timing_ms]
    values: dict[str, list[float]] = {}
    for record in timed:
        timing_ms = record.timing_ms or {}
        for stage, duration_ms in timing_ms.items():
            values.setdefault(stage, []).append(duration_ms)
        if "total" in timing_ms:
            outside_ms = max(record.latency_ms - timing_ms["total"], 0.0)
            values.setdefault(OUTSIDE, []).append(outside_ms)
    return tuple(_stage(stage, sorted(durations)) for stage, durations in values.items())


def _stage(stage: str, ascending: Sequence[float]) -> StageTiming:
    return StageTiming(
        stage=stage,
        mean=round(math.fsum(ascending) / len(ascending), 4),
        p50=percentile(ascending, 50),
        p95=percentile(ascending, 95),
        p99=percentile(ascending, 99),
    )


def _series(run: RunRecords, interval_s: float, latency: Callable[[RequestRecord], float]) -> tuple[SeriesPoint, ...]:
    """Return the intervals from the first request to the end of the run time, empty ones included."""
    bins: dict[int, list[RequestRecord]] = {}
    for record in run.requests:
        if record.end_s < run.run_time_s:
            bins.setdefault(math.floor(record.end_s / interval_s), []).append(record)
    first = math.floor(min((record.end_s for record in run.requests), default=0.0) / interval_s)
    return tuple(
        _point(index * interval_s, bins.get(index, ()), min(interval_s, run.run_time_s - index * interval_s), latency)
        for index in range(min(first, 0), math.ceil(run.run_time_s / interval_s))
    )


def _point(
    start_s: float, records: Sequence[RequestRecord], width_s: float, latency: Callable[[RequestRecord], float]
) -> SeriesPoint:
    ascending = sorted(latency(record) for record in records if record.ok)
    return SeriesPoint(
        start_s=start_s,
        throughput_rps=round(len(ascending) / width_s, 3),
        failures=_failures(records),
        p50_ms=percentile(ascending, 50) if ascending else None,
        p95_ms=percentile(ascending, 95) if ascending else None,
    )
