"""What a load test found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tao2serve.loadtest.addresses import shown_url
from tao2serve.loadtest.plan import ClosedLoop, LoadPlan, OpenLoop
from tao2serve.loadtest.records import RequestRecord
from tao2serve.loadtest.servers import ServerSide
from tao2serve.loadtest.window import is_measured

_BEHIND: Final = 0.1  # of the requests
_CHANCE: Final = 10  # so many may be open behind one slow answer

__all__ = [
    "ClientLoad",
    "ErrorKind",
    "LatencySummary",
    "LoadResult",
    "SeriesPoint",
    "StageTiming",
    "WarmupSummary",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latency of successful requests in milliseconds; percentiles by nearest rank, so each was observed."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupSummary:
    """Requests that started before the run time; they count nowhere else."""

    requests: int
    failures: int
    latency_ms: LatencySummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLoad:
    """Whether the load generator itself was the limit, which makes every other number one of the client."""

    saturated: bool
    reason: str  # a sentence, empty if not saturated
    cpu_ratio: float | None  # of the busiest process over the run time, in cores; None if not measured
    thread_cpu_ratio: float | None = None  # of the busiest thread that sends; the rest is gRPC's
    start_lag_p99_ms: float | None  # from the intended start, or from a user being free, to the request leaving
    wake_lag_p99_ms: float | None = None  # by how much a process overslept that only had to wake
    machine_cpu_ratio: float | None = None  # of all cores of this machine, whoever used them
    warning: str = ""  # a sentence about what else to think of, empty if nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKind:
    """Failures of one kind that said the same."""

    kind: str  # HTTP 422, timeout, connection refused …
    detail: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """One stage of a request in milliseconds, from the server's own `timing_ms`.

    Stage `outside` is ours: latency less the server's total, so network, queues and the HTTP server.
    """

    stage: str
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """One interval of the test, by the time at which requests ended; times below zero are warm-up."""

    start_s: float
    throughput_rps: float  # successful answers
    failures: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """A finished load test.

    `requests` started within the run time, or in an open loop were due in it (window.py); those still open at its
    end were waited for, because dropping them would drop the slowest. `latency_ms` is of successful ones only (a
    fast failure is no fast answer), None if there were none. `throughput_rps` counts successful answers that arrived
    within the run time.
    """

    plan: LoadPlan
    started_at: datetime
    requests: int
    failures: int
    throughput_rps: float
    latency_ms: LatencySummary | None  # in an open loop from the intended start
    service_ms: LatencySummary | None  # from when a request was really sent
    warmup: WarmupSummary
    client: ClientLoad
    errors: tuple[ErrorKind, ...]
    stages: tuple[StageTiming, ...]
    interval_s: float  # width of the points in `series`
    series: tuple[SeriesPoint, ...]
    environment: Mapping[str, str]
    records: tuple[RequestRecord, ...] = field(repr=False)
    log: Path | None = None
    server: ServerSide | None = None  # None: nobody looked

    @property
    def processes(self) -> int:
        """How many generated the load, those of other machines included."""
        return int(self.environment.get("load_generators") or self.plan.processes)

    @property
    def successes(self) -> int:
        return self.requests - self.failures

    @property
    def failure_ratio(self) -> float | None:
        return self.failures / self.requests if self.requests else None

    @property
    def open_at_end(self) -> int:
        """How many of the requests had no answer when the run time was over."""
        return sum(is_measured(self.plan, at) and at.end_s >= self.plan.run_time_s for at in self.records)

    @property
    def fell_behind(self) -> bool:
        """Whether an open loop's requests came faster than answers: more were open at the end than a slow one leaves.

        What is measured then depends on the run time: the queue grows as long as the load lasts.
        """
        return self.plan.is_open and self.open_at_end > max(_BEHIND * self.requests, _CHANCE)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document of the load test, without its verdicts and single requests."""
        return {
            "url": self.plan.url,
            "endpoint": shown_url(self.plan.endpoint),
            "model": self.plan.model,
            "started_at": self.started_at.astimezone(UTC).isoformat(timespec="seconds"),
            "shape": str(self.plan.shape),
            "users": self.plan.shape.users if isinstance(self.plan.shape, ClosedLoop) else None,
            "rate_rps": self.plan.shape.rate_rps if isinstance(self.plan.shape, OpenLoop) else None,
            "targets": [{**asdict(target), "url": target.shown_url} for target in self.plan.targets],
            "order": self.plan.order,
            "seed": self.plan.seed,
            "processes": self.processes,
            "run_time_s": self.plan.run_time_s,
            "warmup_s": self.plan.warmup_s,
            "timeout_s": self.plan.timeout_s,
            "requests": self.requests,
            "failures": self.failures,
            "failure_ratio": self.failure_ratio,
            "open_at_end": self.open_at_end,
            "fell_behind": self.fell_behind,
            "throughput_rps": round(self.throughput_rps, 3),
            "latency_ms": _latency(self.latency_ms),
            "service_ms": _latency(self.service_ms),
            "warmup": {
                "requests": self.warmup.requests,
                "failures": self.warmup.failures,
                "latency_ms": _latency(self.warmup.latency_ms),
            },
            "client": asdict(self.client),
            "errors": [asdict(error) for error in self.errors],
            "stages": [asdict(stage) for stage in self.stages],
            "series": {"interval_s": self.interval_s, "points": [asdict(point) for point in self.series]},
            "server": self.server.to_dict() if self.server else None,
            "environment": dict(self.environment),
            "log": str(self.log) if self.log else None,
        }


def _latency(summary: LatencySummary | None) -> dict[str, float | None]:
    """Keep the members of the contract even where nothing was measured."""
    if summary is None:
        return dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"))
    return {**summary.to_dict()}
