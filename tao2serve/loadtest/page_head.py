"""What the pages of a report say first: the outcome, what to know before the numbers, the headline numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tao2serve.loadtest.compare import Comparison
from tao2serve.loadtest.cost import Cost
from tao2serve.loadtest.gates import Verdict, passed, reasons
from tao2serve.loadtest.page_words import number, sentence
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.series import LoadSeries
from tao2serve.loadtest.series_figures import load_name
from tao2serve.loadtest.sweep import load_of

__all__ = ["Badge", "banners", "cards", "highest_card", "other_reasons", "outcome", "run_badge", "series_outcome"]

Badge: TypeAlias = tuple[str, str]  # CSS class and words


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
        found, failed = series.highest.holds_rps, series.highest.fails_rps
        if found is None:
            return "bad", "highest rate not found" if failed is None else "no rate holds the gates"
        sure = "" if series.highest.confirmed else ", not confirmed"
        return "good" if series.highest.confirmed else "bad", f"holds {found:.4g} requests/s{sure}"
    if series.cut_short:
        return "bad", f"cut short after {'1 run' if len(series.runs) == 1 else f'{len(series.runs)} runs'}"
    if not any(run.verdicts for run in series.runs):
        runs = "1 run" if saturated == 1 else f"{saturated} runs"
        return ("bad", f"client saturated in {runs}") if saturated else ("plain", "no gates set")
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
    """Return CSS class, head and text of what a reader must know before believing the numbers, the worst first.

    Of several runs the text has a line for each, which begins with the run's load.
    """
    alarms = [_of_run(result, result.client.reason, results) for result in results if result.client.saturated]
    warnings = [
        _of_run(result, result.client.warning, results)
        for result in results
        if result.client.warning and (len(results) == 1 or not result.client.saturated)
    ]
    few = [
        _of_run(result, f"with {result.successes} of them the 99th percentile is the maximum", results)
        for result in results
        if 0 < result.successes < 100
    ]
    found = []
    if alarms:
        alarms.append("The numbers say nothing about the endpoint and pass no gate.")
        found.append(("alarm", "The load generator was the bottleneck.", alarms))
    if warnings:
        found.append(("warning", "Mind the load generator.", warnings))
    behind = [_of_run(result, _behind(result), results) for result in results if result.fell_behind]
    if behind:
        found.append(("warning", "More requests than answers.", behind))
    if few:
        found.append(("warning", "Few successful requests.", few))
    lines = "\n" if len(results) > 1 else " "
    return [(kind, head, lines.join(sentences)) for kind, head, sentences in found]


def _behind(result: LoadResult) -> str:
    return (
        f"{result.open_at_end:,} of {result.requests:,} requests had no answer yet when the run time was over: "
        "at this rate the latency grows as long as the load lasts"
    )


def _of_run(result: LoadResult, text: str, results: Sequence[LoadResult]) -> str:
    return sentence(text) if len(results) == 1 else sentence(f"{load_of(result.plan.shape)}: {text}")


def other_reasons(result: LoadResult, verdicts: Sequence[Verdict]) -> list[str]:
    """Return why a run does not pass apart from its gates and a saturated client, a sentence each."""
    said = tuple(f"{verdict.gate.text} " for verdict in verdicts)
    found = (reason for reason in reasons(result, verdicts) if reason != result.client.reason)
    return [sentence(reason) for reason in found if not (said and reason.startswith(said))]


def run_badge(reached: bool, judged: bool, result: LoadResult) -> Badge:
    if result.client.saturated:
        return "bad", "client saturated"
    if not judged and reached:
        return "plain", "measured"
    return ("good", "passed") if reached else ("bad", "missed")
