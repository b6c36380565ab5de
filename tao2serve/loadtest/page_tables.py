"""The cells of the tables on the pages of a report; the templates only lay them out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tao2serve.loadtest.compare import Change, Comparison
from tao2serve.loadtest.figures import latency_of
from tao2serve.loadtest.gates import Gate, Verdict
from tao2serve.loadtest.page_head import run_badge
from tao2serve.loadtest.page_words import number, percent
from tao2serve.loadtest.result import LatencySummary, LoadResult
from tao2serve.loadtest.series import LoadSeries
from tao2serve.loadtest.series_figures import load_of
from tao2serve.loadtest.summary import percentile
from tao2serve.loadtest.window import is_measured

__all__ = ["GateRow", "change_rows", "gate_rows", "missed_by", "run_rows", "target_rows", "two_clocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One gate, as a table shows it."""

    metric: str
    limit: str
    measured: str
    missed_by: str
    passed: bool
    beyond: str = "–"  # requests that took longer than the limit of a percentile
    sure: str = "–"  # that the true percentile is within it


def gate_rows(verdicts: Iterable[Verdict]) -> list[GateRow]:
    return [
        GateRow(
            metric=verdict.gate.metric,
            limit=f"{'≥' if verdict.gate.metric == 'throughput' else '≤'} {_gated(verdict.gate, verdict.gate.limit)}",
            measured="–" if verdict.observed is None else _gated(verdict.gate, verdict.observed),
            missed_by=missed_by(verdict),
            passed=verdict.passed,
            beyond="–" if verdict.beyond is None else f"{verdict.beyond:,}",
            # rounded down: 99.96 % is not 100 %
            sure="–" if verdict.confidence is None else f"at most {math.floor(1000 * verdict.confidence) / 10:g} %",
        )
        for verdict in verdicts
    ]


def _gated(gate: Gate, value: float) -> str:
    """Return a number in the unit of its gate, a ratio in percent."""
    return f"{100 * value:.4g} %" if gate.metric == "failure-ratio" else f"{value:,.5g} {gate.unit}"


def missed_by(verdict: Verdict) -> str:
    """Return by how much a gate was missed, or why its number is not to be believed; empty if it was reached."""
    if verdict.passed:
        return ""
    return verdict.missed_by.text if verdict.missed_by is not None else f"not judged: {verdict.reason}"


def change_rows(comparison: Comparison) -> list[dict[str, str | bool]]:
    """Return the cells of the comparison's table."""
    return [
        {
            "metric": change.metric,
            "old": _value(change, change.old),
            "new": _value(change, change.new),
            "change": _change(change),
            "interval": f"{percent(change.interval[0])} … {percent(change.interval[1])}" if change.interval else "–",
            "noise": change.noise,
            "regression": change.is_regression,
            "doubtful": change.is_doubtful,
            "judged_by": change.judged_by or "shown only",
        }
        for change in comparison.changes
    ]


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if change.metric == "failure-ratio" else f"{number(value)} {change.unit}"


def _change(change: Change) -> str:
    if change.metric == "failure-ratio":
        both = change.old is not None and change.new is not None
        return f"{100 * ((change.new or 0) - (change.old or 0)):+.2f} points" if both else "–"
    return "–" if change.change_ratio is None else percent(change.change_ratio)


def two_clocks(result: LoadResult) -> list[tuple[str, list[str]]]:
    """Return response time and service time side by side, for an open loop only."""
    if not result.plan.is_open or result.latency_ms is None or result.service_ms is None:
        return []
    rows = (("response time", result.latency_ms), ("service time", result.service_ms))
    return [(name, _percentiles(summary)) for name, summary in rows]


def _percentiles(summary: LatencySummary | None) -> list[str]:
    names = ("p50", "p90", "p95", "p99", "max")
    return ["–"] * len(names) if summary is None else [f"{summary.to_dict()[name]:,.1f}" for name in names]


def target_rows(result: LoadResult) -> list[list[str]]:
    """Return name, requests, failures, answers/s, p50, p95 and p99 of each target, if there are several."""
    plan = result.plan
    if len(plan.targets) < 2:
        return []
    latency, rows = latency_of(result), []
    for index, target in enumerate(plan.targets):
        mine = [record for record in result.records if record.target == index]
        within = [record for record in mine if is_measured(plan, record)]
        answered = sum(1 for record in mine if record.ok and 0 <= record.end_s < plan.run_time_s)
        ascending = sorted(latency(record) for record in within if record.ok)
        percents = [f"{percentile(ascending, nth):,.1f}" if ascending else "–" for nth in (50, 95, 99)]
        failures = sum(1 for record in within if not record.ok)
        name = f"{target.label} at {target.shown_url}" if target.model else target.label
        rows.append([name, f"{target.weight:g}", f"{len(within):,}", f"{failures:,}",
                     f"{answered / plan.run_time_s:.1f}", *percents])  # fmt: skip
    return rows


def run_rows(series: LoadSeries) -> list[dict[str, Any]]:
    """Return the cells of the table of runs, by load."""
    return [
        {
            "load": f"{load_of(series, run.result):.4g}",
            "shape": str(run.result.plan.shape),
            "throughput": number(run.result.throughput_rps),
            "failures": f"{100 * (run.result.failure_ratio or 0):.2f} %",
            "latency": _percentiles(run.result.latency_ms),
            "badge": run_badge(run.passed, bool(run.verdicts), run.result),
            "missed": "; ".join(
                f"{verdict.gate.text} by {verdict.missed_by.text}" for verdict in run.verdicts if verdict.missed_by
            ),
        }
        for run in sorted(series.runs, key=lambda run: load_of(series, run.result))
    ]
