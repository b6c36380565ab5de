"""What the pages of a report say, in words and cells; the templates only lay it out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tao2serve.loadtest.compare import Change, Comparison
from tao2serve.loadtest.cost import Cost
from tao2serve.loadtest.figures import latency_of
from tao2serve.loadtest.gates import Verdict, passed, reasons
from tao2serve.loadtest.page_servers import sentence
from tao2serve.loadtest.result import LatencySummary, LoadResult
from tao2serve.loadtest.series import LoadSeries
from tao2serve.loadtest.series_figures import load_name, load_of
from tao2serve.loadtest.summary import percentile
from tao2serve.loadtest.window import is_measured

__all__ = [
    "Badge",
    "Facts",
    "banners",
    "cards",
    "change_rows",
    "endpoint_facts",
    "gate_rows",
    "generator_facts",
    "highest_card",
    "missed_by",
    "more_facts",
    "number",
    "other_reasons",
    "outcome",
    "run_rows",
    "series_outcome",
    "target_rows",
    "two_clocks",
]

Badge: TypeAlias = tuple[str, str]  # CSS class and words
Facts: TypeAlias = list[tuple[str, str]]

# Environment members of what serves; the others are of the load generator.
_ENDPOINT_NAMES = {
    "precision": "Precision",
    "placement": "Placement",
    "weights": "Weights",
    "trained_model": "Trained model",
    "gpu": "GPU",
    "serving_cpu": "CPU that serves",
    "triton": "Triton",
    "tensorrt": "TensorRT that built the plan",
    "onnxruntime": "ONNX Runtime that checked the model",
    "clearml_serving": "ClearML Serving that configured the service",
    "clearml": "ClearML SDK that deployed",
    "deployed_by": "Deployed by",
    "deployment_task": "Deployment task",
}
_GENERATOR_NAMES = {
    "cpu_model": "CPU",
    "cpu_count": "CPUs usable",
    "system": "System",
    "python": "Python",
    "locust": "locust",
    "tao2serve": "tao2serve",
    "images": "Images",
    "images_digest": "Their digest",
    "load_generators": "Processes",
}


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


def number(value: float) -> str:
    """Three significant digits below a thousand, whole numbers above."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(ratio: float) -> str:
    """Return a change in %, with its sign."""
    return f"{100 * ratio:+,.1f} %"


def outcome(result: LoadResult, verdicts: Sequence[Verdict], comparison: Comparison | None = None) -> Badge:
    if not result.successes:
        return "bad", "no request succeeded"
    if result.client.saturated:
        return "bad", "client saturated"
    if not passed(result, verdicts):
        missed = any(not verdict.passed for verdict in verdicts)
        return "bad", "gates missed" if missed else "not passed"
    if comparison is not None and not comparison.passed:
        return "bad", "regression" if comparison.is_comparable else "not comparable"
    return ("good", "gates passed") if verdicts else ("plain", "no gates set")


def series_outcome(series: LoadSeries) -> Badge:
    saturated = sum(run.result.client.saturated for run in series.runs)
    if saturated == len(series.runs):
        return "bad", "client saturated"
    if series.highest is not None:
        found = series.highest.holds_rps
        return ("good", f"holds {found:.4g} requests/s") if found else ("bad", "no rate holds the gates")
    if not any(run.verdicts for run in series.runs):
        return ("bad", f"client saturated in {saturated} runs") if saturated else ("plain", "no gates set")
    reached = sum(run.passed for run in series.runs)
    return "good" if reached == len(series.runs) else "bad", f"{reached} of {len(series.runs)} runs passed"


def cards(result: LoadResult, cost: Cost | None) -> list[tuple[str, str, str]]:
    """Return name, value and unit of the headline numbers."""
    shown = [("Throughput", number(result.throughput_rps), "requests/s")]
    if result.latency_ms is not None:
        latency_ms = result.latency_ms.to_dict()
        shown += [(name, number(latency_ms[name]), "ms") for name in ("p50", "p90", "p95", "p99", "max")]
    ratio = result.failure_ratio or 0.0
    shown.append(("Failures", f"{result.failures:,}", f"of {result.requests:,} · {100 * ratio:.2f} %"))
    if cost is not None:
        shown.append(("Cost", f"{cost.per_1000_images:.3g}", "per 1,000 images"))
    return shown


def highest_card(series: LoadSeries, cost: Cost | None) -> list[tuple[str, str, str]]:
    """Return the headline numbers of a series: what holds, what fails, the highest throughput, the cost there."""
    best = max(run.result.throughput_rps for run in series.runs)
    shown = [
        ("Runs", str(len(series.runs)), f"over {load_name(series)}"),
        ("Highest throughput", number(best), "requests/s"),
    ]
    if series.highest is not None:
        for name, rate in (("Holds", series.highest.holds_rps), ("Fails at", series.highest.fails_rps)):
            shown.append((name, "–" if rate is None else number(rate), "requests/s"))
    if cost is not None:
        shown.append(("Cost", f"{cost.per_1000_images:.3g}", "per 1,000 images"))
    return shown


def banners(results: Sequence[LoadResult]) -> list[tuple[str, str, str]]:
    """Return CSS class, head and text of what a reader must know before believing the numbers, the worst first."""
    found = []
    for result in results:
        of = f" ({result.plan.shape})" if len(results) > 1 else ""
        if result.client.saturated:
            head = f"The load generator was the bottleneck{of}."
            text = f"{sentence(result.client.reason)} The numbers say nothing about the endpoint and pass no gate."
            found.append(("alarm", head, text))
    for result in results:
        of = f" ({result.plan.shape})" if len(results) > 1 else ""
        if result.client.warning:
            found.append(("warning", f"Mind the load generator{of}.", sentence(result.client.warning)))
        if 0 < result.successes < 100:
            text = f"With {result.successes} of them the 99th percentile is the maximum."
            found.append(("warning", f"Few successful requests{of}.", text))
    return found


def gate_rows(verdicts: Iterable[Verdict]) -> list[GateRow]:
    return [
        GateRow(
            metric=verdict.gate.metric,
            limit=f"{'≥' if verdict.gate.metric == 'throughput' else '≤'} {verdict.gate.limit:g} {verdict.gate.unit}",
            measured="–" if verdict.observed is None else f"{verdict.observed:.4g} {verdict.gate.unit}",
            missed_by=missed_by(verdict),
            passed=verdict.passed,
            beyond="–" if verdict.beyond is None else f"{verdict.beyond:,}",
            # rounded down: 99.96 % is not 100 %
            sure="–" if verdict.confidence is None else f"at most {math.floor(1000 * verdict.confidence) / 10:g} %",
        )
        for verdict in verdicts
    ]


def missed_by(verdict: Verdict) -> str:
    """Return by how much a gate was missed, or why its number is not to be believed; empty if it was reached."""
    if verdict.passed:
        return ""
    return verdict.missed_by.text if verdict.missed_by is not None else f"not judged: {verdict.reason}"


def other_reasons(result: LoadResult, verdicts: Sequence[Verdict]) -> list[str]:
    """Return why a run does not pass apart from its gates and a saturated client, a sentence each."""
    said = tuple(f"{verdict.gate.text} " for verdict in verdicts)
    found = (reason for reason in reasons(result, verdicts) if reason != result.client.reason)
    return [sentence(reason) for reason in found if not (said and reason.startswith(said))]


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
            "badge": _run_badge(run.passed, bool(run.verdicts), run.result),
            "missed": "; ".join(
                f"{verdict.gate.text} by {verdict.missed_by.text}" for verdict in run.verdicts if verdict.missed_by
            ),
        }
        for run in sorted(series.runs, key=lambda run: load_of(series, run.result))
    ]


def _run_badge(reached: bool, judged: bool, result: LoadResult) -> Badge:
    if result.client.saturated:
        return "bad", "client saturated"
    if not judged and reached:
        return "plain", "measured"
    return ("good", "passed") if reached else ("bad", "missed")


def endpoint_facts(result: LoadResult) -> Facts:
    """Return what served: names, model, precision, hardware and versions, as far as they are known."""
    plan = result.plan
    facts = [("Endpoint", plan.endpoint)] if plan.endpoint else []
    facts += [("Address" if len(plan.targets) == 1 else "Target", f"{target.shown_url} {_model(target)}".strip())
              for target in plan.targets]  # fmt: skip
    facts += [("Model", plan.model)] if plan.model else []
    held = result.environment
    return facts + [(name, held[key]) for key, name in _ENDPOINT_NAMES.items() if held.get(key)]


def more_facts(more: Mapping[str, Any]) -> Facts:
    """Return what the command knows beside the run: scenario, cold start, and the ClearML task that was told."""
    facts = []
    if scenario := more.get("scenario"):
        value = "not measured" if scenario["value"] is None else f"{scenario['value']:.4g} {scenario['unit']}"
        facts.append(("Scenario", f"MLPerf {scenario['name']}: {scenario['metric']} {value}"))
    if cold := more.get("cold_start"):
        first = ", ".join(f"{request_ms:.0f}" for request_ms in cold["requests_ms"])
        facts.append(("Cold start", f"loaded in {cold['load_s']:.1f} s; first answers {first} ms"))
    if more.get("reported_to"):
        facts.append(("Reported to", f"ClearML task {more['reported_to']}"))
    return facts


def _model(target: Any) -> str:
    return f"({target.label})" if target.model else ""


def generator_facts(result: LoadResult) -> Facts:
    """Return what made the load and how it fared."""
    held, client, warmup = result.environment, result.client, result.warmup
    facts = [(name, held[key]) for key, name in _GENERATOR_NAMES.items() if held.get(key)]
    facts += [(key, value) for key, value in held.items() if key not in _GENERATOR_NAMES | _ENDPOINT_NAMES]
    cpu = "not measured" if client.cpu_ratio is None else f"{100 * client.cpu_ratio:.0f} % of one core"
    if client.thread_cpu_ratio is not None:
        cpu += f", {100 * client.thread_cpu_ratio:.0f} % by the thread that sends"
    lag = "not measured" if client.start_lag_p99_ms is None else f"{client.start_lag_p99_ms:.2f} ms"
    told = f"{warmup.requests:,} requests, {warmup.failures:,} failed"
    if warmup.latency_ms is not None:
        told += f", p50 {number(warmup.latency_ms.p50)} ms, max {number(warmup.latency_ms.max)} ms"
    facts += [("CPU of the busiest", cpu), ("Start lag, p99", lag)]
    if client.wake_lag_p99_ms is not None:
        facts.append(("Overslept, p99", f"{client.wake_lag_p99_ms:.2f} ms"))
    if client.machine_cpu_ratio is not None:
        facts.append(("CPU of the machine", f"{100 * client.machine_cpu_ratio:.0f} % of all cores"))
    plan = result.plan
    return [*facts, ("Warm-up", told), ("Timeout", f"{plan.timeout_s:g} s"), ("Order of the images", plan.order),
            ("Seed", str(plan.seed))]  # fmt: skip
