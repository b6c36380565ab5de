"""Results to test with, made from requests whose numbers are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, Target
from tao2serve.loadtest.records import RequestRecord, RunRecords
from tao2serve.loadtest.summary import CpuSample, summarise
from tao2serve.loadtest.triton_counts import Counters

TRITON_STAGES = ("queue", "compute_input", "compute_infer", "compute_output", "success")


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


def counters(
    requests: int, *, each_ms: float = 1.0, failures: int = 0, batches: dict[int, int] | None = None
) -> Counters:
    """Triton's counters after so many requests, whose stages took 1, 2, 3, 4 and 5 times `each_ms`."""
    sizes = {1: requests} if batches is None else batches
    return Counters(
        inferences=requests, executions=sum(sizes.values()), failures=failures,
        counts=dict.fromkeys(TRITON_STAGES, requests),
        total_ns={stage: round(requests * each_ms * 1e6 * (index + 1)) for index, stage in enumerate(TRITON_STAGES)},
        batches=sizes,
    )  # fmt: skip
