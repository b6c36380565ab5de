"""The tables beside a report: every request, and every run of a series, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tao2serve.loadtest.plan import ClosedLoop, OpenLoop
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.series import LoadSeries, SeriesRun
from tao2serve.loadtest.window import phase_of

__all__ = ["requests_csv", "series_csv"]

_PERCENTILES = ("p50", "p90", "p95", "p99", "max", "mean")
_FIXED = ("run", "phase", "target", "user", "image", "intended_s", "start_s", "latency_ms", "response_ms", "status",
          "error", "detail")  # fmt: skip


def requests_csv(results: Sequence[LoadResult]) -> str:
    """One row per request, warm-up included; times in seconds since the start of the run time, of run 1, 2, …"""
    records = [record for result in results for record in result.records]
    stages = list(dict.fromkeys(stage for record in records for stage in record.timing_ms or {}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIXED, *(f"server_{stage}_ms" for stage in stages)])
    for number, result in enumerate(results, start=1):
        labels = [target.label for target in result.plan.targets]
        for record in result.records:
            row: list[object] = [number, phase_of(result.plan, record), labels[record.target]]
            row += [record.user, record.image, record.intended_s, record.start_s, record.latency_ms]
            row += [round(record.response_ms, 4), record.status, record.error, record.detail]
            writer.writerow(row + [(record.timing_ms or {}).get(stage, "") for stage in stages])
    return text.getvalue()


def series_csv(series: LoadSeries) -> str:
    """One row per run, in the order in which they were made; latencies and service times in milliseconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "shape", "users", "rate_rps", "requests", "failures", "throughput_rps"]
        + [f"{name}_ms" for name in _PERCENTILES]
        + [f"service_{name}_ms" for name in _PERCENTILES]
        + ["saturated", "passed"]
    )
    for number, run in enumerate(series.runs, start=1):
        writer.writerow([number, *_row(run)])
    return text.getvalue()


def _row(run: SeriesRun) -> list[object]:
    result, shape = run.result, run.result.plan.shape
    row: list[object] = [str(shape), shape.users if isinstance(shape, ClosedLoop) else ""]
    row += [shape.rate_rps if isinstance(shape, OpenLoop) else "", result.requests, result.failures]
    row.append(round(result.throughput_rps, 3))
    for summary in (result.latency_ms, result.service_ms):
        values = summary.to_dict() if summary else {}
        row += [values.get(name, "") for name in _PERCENTILES]
    return [*row, str(result.client.saturated).lower(), str(run.passed).lower()]
