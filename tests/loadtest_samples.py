"""Results to test with, made from requests whose numbers are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, Target
from tao2serve.loadtest.records import RequestRecord, RunRecords
from tao2serve.loadtest.summary import CpuSample, summarise


def plan(run_time_s: float = 10.0, warmup_s: float = 1.0) -> LoadPlan:
    return LoadPlan(
        targets=(Target(url="http://127.0.0.1:8080/serve/people/4"),),
        images=Path("images"),
        shape=ClosedLoop(users=2),
        run_time_s=run_time_s,
        warmup_s=warmup_s,
        endpoint="people/4",
    )


def record(
    start_s: float,
    latency_ms: float,
    *,
    error: str = "",
    detail: str = "",
    timing_ms: dict[str, float] | None = None,
    lag_s: float = 0.0,
) -> RequestRecord:
    return RequestRecord(
        user=0,
        image=0,
        intended_s=start_s - lag_s,
        start_s=start_s,
        latency_ms=latency_ms,
        status=0 if error else 200,
        error=error,
        detail=detail,
        timing_ms=timing_ms,
    )


def run(records: Iterable[RequestRecord], run_time_s: float = 10.0) -> RunRecords:
    return RunRecords(
        started_at=1_790_000_000.0,
        window_start_s=100.0,
        run_time_s=run_time_s,
        locust="2.47.0",
        python="3.11.7",
        requests=tuple(records),
    )


def result(records: Iterable[RequestRecord], *, cpu: Sequence[CpuSample] = ()) -> LoadResult:
    return summarise(plan(), run(records), cpu=cpu, environment={"cpu_model": "EPYC <b>"})
