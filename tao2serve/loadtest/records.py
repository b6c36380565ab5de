"""What the runner and the locust process say to each other: the run file, progress lines, request records.

The locust process gets the path of a run file (JSON) in `TAO2SERVE_LOADTEST_RUN`, writes one progress line
(JSON) at a time to a pipe, and leaves a records file: JSON lines, first a header, then one array per request.
All times are seconds of the machine's monotonic clock, which both processes share; in the records file they
are relative to the start of the run time, so that requests of the warm-up start below zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.errors import ToolError

__all__ = ["RUN_FILE_VARIABLE", "RequestRecord", "RunRecords", "read_records", "write_records"]

RUN_FILE_VARIABLE = "TAO2SERVE_LOADTEST_RUN"
_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that ended by itself; none is made of a request that the end of the test cut off."""

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
class RunRecords:
    """Everything one locust process recorded."""

    started_at: float  # Unix time at which the run time started
    window_start_s: float  # the same moment on the monotonic clock
    run_time_s: float
    locust: str  # version
    python: str
    requests: tuple[RequestRecord, ...]


def write_records(path: Path, header: Mapping[str, object], rows: Iterable[RequestRecord]) -> None:
    """Write the records file; `header` holds the members of RunRecords but its requests."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps({"format": _FORMAT, **header}) + "\n")
        for row in rows:
            stream.write(json.dumps(_row(row), separators=(",", ":")) + "\n")


def _row(record: RequestRecord) -> list[object]:
    return [
        record.user,
        record.image,
        round(record.intended_s, 6),
        round(record.start_s, 6),
        round(record.latency_ms, 4),
        record.status,
        record.error,
        record.detail,
        record.timing_ms,
        record.target,
    ]


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
        return RunRecords(
            started_at=float(header["started_at"]),
            window_start_s=float(header["window_start_s"]),
            run_time_s=float(header["run_time_s"]),
            locust=str(header["locust"]),
            python=str(header["python"]),
            requests=requests,
        )
    except (OSError, StopIteration, ValueError, KeyError, TypeError) as error:
        raise ToolError("locust", "left no complete records", evidence=f"{type(error).__name__}: {error}") from error


def _record(row: list[Any]) -> RequestRecord:
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
