"""What the runner and the locust process say to each other: the run file, progress lines, request records.

The locust process gets the path of a run file (JSON) in `TAO2SERVE_LOADTEST_RUN`, writes one progress line
(JSON) at a time to a pipe, and leaves a records file: JSON lines, first a header, then one array per request.
Progress lines hold seconds of the machine's monotonic clock, which both processes share. Times in the records file
are relative to the start of the run time, in the process that sent the request, so that requests of the warm-up
start below zero and the clocks of several machines need not agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tao2serve.errors import ToolError

__all__ = [
    "RUN_FILE_VARIABLE",
    "WORKER_VARIABLE",
    "CpuSample",
    "RequestRecord",
    "Row",
    "RunRecords",
    "read_records",
    "request_row",
    "sample_row",
    "write_records",
]

RUN_FILE_VARIABLE = "TAO2SERVE_LOADTEST_RUN"
WORKER_VARIABLE = "TAO2SERVE_LOADTEST_WORKER"  # the process that started this worker, by its id
_FORMAT = 4
Row: TypeAlias = list[Any]  # the members of a RequestRecord in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request; one still open when the test gave up waiting is a timeout."""

    user: int
    image: int  # index into the images of the run
    intended_s: float  # by the schedule; in a closed loop when the user was free: the end of its request before
    start_s: float
    latency_ms: float  # from the first byte sent to the last byte received, as locust measures it
    status: int  # HTTP status, 0 if there was no answer
    error: str = ""  # kind of failure, empty if none
    detail: str = ""  # what the server or the socket said about it
    timing_ms: Mapping[str, float] | None = None  # the server's own account, by stage
    target: int = 0  # index into the targets of the plan

    @property
    def end_s(self) -> float:
        return self.start_s + self.latency_ms / 1000

    @property
    def response_ms(self) -> float:
        """Latency from the intended start: what waits for the client, or behind a stalled request, is in it."""
        return (self.start_s - self.intended_s) * 1000 + self.latency_ms

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSample:
    """How a load generator process was at a moment of the monotonic clock: what it had used and waited for since its
    start, and by how much it overslept since the sample before."""

    at_s: float
    used_s: float  # CPU, all threads: gRPC has some of its own
    thread_s: float  # CPU of the one thread that sends: what it has not, requests wait for
    waited_s: float = 0.0  # that this thread was ready to run while others had its core
    late_ms: tuple[float, ...] = ()
    process: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """Everything the locust processes recorded."""

    started_at: float  # Unix time at which the run time started
    window_start_s: float  # the same moment on the monotonic clock
    run_time_s: float
    locust: str  # version
    python: str
    requests: tuple[RequestRecord, ...]
    samples: tuple[CpuSample, ...] = ()
    capped: int = 0  # requests that waited in the generator because it had too many open
    open_limit: int = 0  # that one process may have open


def write_records(
    path: Path, header: Mapping[str, object], rows: Iterable[Row], *, samples: Iterable[CpuSample] = ()
) -> None:
    """Write the records file; `header` holds the members of RunRecords that are not given apart."""
    with path.open("w", encoding="utf-8") as stream:
        lines = [sample_row(sample) for sample in samples]
        stream.write(json.dumps({"format": _FORMAT, **header, "samples": lines}) + "\n")
        for row in rows:
            stream.write(json.dumps(row, separators=(",", ":")) + "\n")


def request_row(record: RequestRecord) -> Row:
    return list(astuple(record))


def sample_row(sample: CpuSample) -> list[Any]:
    return list(astuple(sample))


def read_records(path: Path) -> RunRecords:
    """Read the records file of a locust process that has ended.

    Raises ToolError if it is missing or not complete.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            header: dict[str, Any] = json.loads(next(stream))
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']}, expected {_FORMAT}")
            requests = tuple(_record(json.loads(line)) for line in stream)
        if len(requests) != header["requests"]:
            raise ValueError(f"{len(requests)} of {header['requests']} requests")
        zero_s = float(header["window_start_s"])
        return RunRecords(
            started_at=float(header["started_at"]),
            window_start_s=zero_s,
            run_time_s=float(header["run_time_s"]),
            locust=str(header["locust"]),
            python=str(header["python"]),
            requests=requests,
            samples=tuple(_sample(row, zero_s) for row in header["samples"]),
            capped=int(header["capped"]),
            open_limit=int(header["open_limit"]),
        )
    except (OSError, StopIteration, ValueError, KeyError, TypeError) as error:
        raise ToolError("locust", "left no complete records", evidence=f"{type(error).__name__}: {error}") from error


def _record(row: Row) -> RequestRecord:
    user, image, intended_s, start_s, latency_ms, status, error, detail, timing_ms, target = row
    return RequestRecord(
        user=user,
        image=image,
        intended_s=intended_s,
        start_s=start_s,
        latency_ms=latency_ms,
        status=status,
        error=error,
        detail=detail,
        timing_ms=timing_ms,
        target=target,
    )


def _sample(row: Sequence[Any], zero_s: float) -> CpuSample:
    at_s, used_s, thread_s, waited_s, late_ms, process = row
    return CpuSample(
        at_s=zero_s + at_s, used_s=used_s, thread_s=thread_s, waited_s=waited_s, late_ms=tuple(late_ms), process=process
    )
