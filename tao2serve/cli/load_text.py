"""The result of `loadtest` as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tao2serve.loadtest import LoadResult, Verdict
    from tao2serve.loadtest.compare import Comparison
    from tao2serve.loadtest.layers import LayerCosts
    from tao2serve.loadtest.series import HighestRate, LoadSeries

__all__ = ["layers_text", "more_text", "run_text", "series_text", "table"]

PERCENTILES = ("p50", "p90", "p95", "p99", "max")


def run_text(
    result: LoadResult, verdicts: Sequence[Verdict], document: dict[str, Any], *, comparison: Comparison | None = None
) -> str:
    """Return one run in a few lines; `document` is what --json prints of it."""
    lines = [
        f"load        {result.plan.shape}, {result.plan.run_time_s:g} s",
        f"requests    {result.requests} ({result.failures} failed), {result.throughput_rps:.1f} answered per second",
    ]
    if result.latency_ms is not None:
        latency_ms = result.latency_ms.to_dict()
        since = " from the intended start" if result.plan.is_open else ""
        lines.append("latency     " + "  ".join(f"{name} {latency_ms[name]:.1f} ms" for name in PERCENTILES) + since)
    if (scenario := document.get("scenario")) and scenario["value"] is not None:
        value = f"{scenario['metric']} {scenario['value']:.4g} {scenario['unit']}"
        lines.append(f"scenario    {scenario['name']}: {value}")
    lines += _client(result)
    if result.fell_behind:
        lines.append(
            f"warning     {result.open_at_end} of {result.requests} requests had no answer yet when the run time was "
            "over: at this rate the latency grows as long as the load lasts"
        )
    lines += [
        f"error       {error.count} x {error.kind}" + (f": {error.detail}" if error.detail else "")
        for error in result.errors
    ]
    lines += [_verdict(verdict) for verdict in verdicts]
    lines += _reasons(document, verdicts)
    if comparison is not None:
        lines.append(f"{'compared ' if comparison.passed else 'MISSED   '}   {comparison}")
    return "\n".join(lines)


def series_text(series: LoadSeries) -> str:
    """Return a table with a line for each run, then what a search found."""
    from tao2serve.loadtest.sweep import load_of

    rows: list[tuple[str, ...]] = [("load", "answered/s", "failed", *PERCENTILES, "")]
    for run in series.runs:
        result = run.result
        latency_ms = result.latency_ms.to_dict() if result.latency_ms else {}
        rows.append((
            load_of(result.plan.shape),
            f"{result.throughput_rps:.1f}",
            f"{result.failures}/{result.requests}",
            *(f"{latency_ms[name]:.1f}" if latency_ms else "-" for name in PERCENTILES),
            _outcome(run.passed, run.verdicts, result),
        ))  # fmt: skip
    lines = table(rows)
    if any(run.result.plan.is_open for run in series.runs):
        lines.append("latencies in ms, from the intended start of each request")
    else:
        lines.append("latencies in ms")
    lines += [
        f"warning     {load_of(run.result.plan.shape)}: {run.result.client.reason}"
        for run in series.runs
        if run.result.client.saturated
    ]
    if series.highest is not None:
        lines += _highest(series.highest)
    return "\n".join(lines)


def layers_text(costs: LayerCosts) -> str:
    """Return a table with a line for each layer, the outermost first; all in ms but the answers."""
    rows: list[tuple[str, ...]] = [("layer", "p50", "added", "p99", "answered/s", "failed", "")]
    for layer in costs.layers:
        rows.append((
            layer.target.label,
            *(
                "-" if value is None else f"{value:.1f}"
                for value in (layer.p50_ms, costs.added_ms(layer), layer.p99_ms, layer.throughput_rps)
            ),
            f"{layer.failures}/{layer.requests}",
            "client saturated" if layer.saturated else "",
        ))  # fmt: skip
    warnings = [f"warning     {layer.target.label}: {layer.saturated}" for layer in costs.layers if layer.saturated]
    return "\n".join([*table(rows), "ms; added: beyond the p50 of the last one", *warnings])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    last = len(row) - 1
    return [
        text.ljust(width) if column in (0, last) else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _outcome(passed: bool, verdicts: Sequence[Verdict], result: LoadResult) -> str:
    if result.client.saturated:
        return "client saturated"
    if not verdicts:
        return "" if passed else "failures"
    if passed:
        return "reached"
    missed = [f"{verdict.gate.text} by {miss.text}" for verdict in verdicts if (miss := verdict.missed_by) is not None]
    return f"MISSED {', '.join(missed)}" if missed else "MISSED"


def _highest(highest: HighestRate) -> list[str]:
    return [f"highest     {highest.finding}", f"            {highest.confidence}"]


def _client(result: LoadResult) -> list[str]:
    if result.client.saturated:
        return [f"warning     the client was the bottleneck: {result.client.reason}"]
    return [f"warning     {result.client.warning}"] if result.client.warning else []


def _verdict(verdict: Verdict) -> str:
    if verdict.observed is None:
        return f"MISSED      {verdict.gate.text}: {verdict.reason}"
    seen = f"measured {verdict.observed:.4g}{verdict.gate.unit}"
    if verdict.passed:
        # rounded down: 99.96 % is not 100 %
        sure = "" if verdict.confidence is None else f", at most {math.floor(1000 * verdict.confidence) / 10:g} % sure"
        return f"reached     {verdict.gate.text}, {seen}{sure}"
    return f"MISSED      {verdict.gate.text}, {seen}: {verdict.reason}"


def _reasons(document: dict[str, Any], verdicts: Sequence[Verdict]) -> list[str]:
    """Say why it does not pass, beyond what the verdicts have said and the warning about the client."""
    client = document["client"]["reason"]
    said = tuple(f"{verdict.gate.text} " for verdict in verdicts)
    return [
        f"MISSED      {reason}"
        for reason in document["reasons"]
        if reason != client and not (said and reason.startswith(said))
    ]


def more_text(document: dict[str, Any]) -> list[str]:
    """Return the lines below one run or several: cost, cold start, where the report is."""
    lines = []
    if cost := document.get("cost"):
        lines.append(f"cost        {cost['per_1000_images']:.4g} per 1,000 images, {cost['basis']}")
    if cold := document.get("cold_start"):
        first = ", ".join(f"{request_ms:.0f}" for request_ms in cold["requests_ms"])
        lines.append(f"cold start  loaded in {cold['load_s']:.1f} s; its first answers took {first} ms")
    if document.get("report"):
        lines.append(f"report      {document['report']}")
    return lines
