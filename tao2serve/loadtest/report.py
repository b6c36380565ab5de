"""The report of load tests: one HTML page that needs no network, with JSON and CSV beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tao2serve.documents import json_text
from tao2serve.errors import UsageError
from tao2serve.loadtest import page_facts, page_head, page_tables
from tao2serve.loadtest.compare import Comparison
from tao2serve.loadtest.cost import Cost, cost_of
from tao2serve.loadtest.figures import figures
from tao2serve.loadtest.gates import Verdict, document
from tao2serve.loadtest.page_servers import server_tables
from tao2serve.loadtest.plan import make_directory
from tao2serve.loadtest.rendering import rendered, replace_file
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.series import LoadSeries
from tao2serve.loadtest.series_figures import gates_of, load_name, load_of, series_figures
from tao2serve.loadtest.tables import requests_csv, series_csv

__all__ = [
    "rendered",
    "replace_file",
    "run_document",
    "series_cost",
    "series_document",
    "write_report",
    "write_series_report",
]


def write_report(
    result: LoadResult,
    *,
    verdicts: Sequence[Verdict] = (),
    directory: Path,
    comparison: Comparison | None = None,
    price_per_hour: float | None = None,
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write report.html, result.json and requests.csv into `directory` and return the path of the page.

    `more` are members that the run itself does not know (`scenario`, `cold_start`, `reported_to`), for both.
    The directory may exist; these files in it are replaced, each as a whole. Raises UsageError if it cannot
    be written to or the price is none, ToolError if plotly is not installed.
    """
    report = directory.resolve() / "report.html"
    cost = None if price_per_hour is None else cost_of(result, price_per_hour=price_per_hour)
    told = run_document(result, verdicts, report=report, cost=cost, comparison=comparison)
    html = _run_page(result, verdicts, cost, comparison, more or {})
    return _write(report, html, {**told, **(more or {})}, {"requests.csv": requests_csv([result])})


def write_series_report(
    series: LoadSeries,
    *,
    directory: Path,
    price_per_hour: float | None = None,
    name: str = "",
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write report.html, result.json, series.csv and requests.csv of several runs; otherwise as `write_report`."""
    report = directory.resolve() / "report.html"
    cost = series_cost(series, price_per_hour)
    told = series_document(series, report=report, cost=cost)
    html = _series_page(series, cost, name, more or {})
    results = [run.result for run in series.runs]
    told |= more or {}
    return _write(report, html, told, {"series.csv": series_csv(series), "requests.csv": requests_csv(results)})


def run_document(
    result: LoadResult,
    verdicts: Sequence[Verdict],
    *,
    report: Path | None = None,
    cost: Cost | None = None,
    comparison: Comparison | None = None,
) -> dict[str, object]:
    """Return the JSON document of one run with its verdicts, by how much gates were missed, cost and comparison."""
    told = document(result, verdicts, report=report)
    return {
        **told,
        "passed": bool(told["passed"]) and (comparison is None or comparison.passed),
        "cost": cost.to_dict() if cost else None,
        "comparison": comparison.to_dict() if comparison else None,
    }


def series_document(series: LoadSeries, *, report: Path | None = None, cost: Cost | None = None) -> dict[str, object]:
    """Return the JSON document of several runs: each as `run_document`, and what a search found.

    The members of a single run are there too, those of the decisive run (LoadSeries.decisive).
    """
    runs = [run_document(run.result, run.verdicts) for run in series.runs]
    return {
        **runs[series.decisive],
        "passed": series.passed,
        "decisive": series.decisive,
        "cut_short": series.cut_short,
        "runs": runs,
        "highest": series.highest.to_dict() if series.highest else None,
        "cost": cost.to_dict() if cost else None,
        "report": str(report) if report else None,
    }


def series_cost(series: LoadSeries, price_per_hour: float | None) -> Cost | None:
    """Return the cost at the run with the most answers among those that passed, None if none did or without a price."""
    held = [run.result for run in series.runs if run.passed and not run.result.client.saturated]
    if price_per_hour is None or not held:
        return None
    return cost_of(max(held, key=lambda result: result.throughput_rps), price_per_hour=price_per_hour)


def _write(report: Path, html: str, told: Mapping[str, object], tables: Mapping[str, str]) -> Path:
    try:
        make_directory(report.parent)
        for name, text in tables.items():
            replace_file(report.with_name(name), text)
        replace_file(report.with_name("result.json"), json_text(told))
        replace_file(report, html)
    except OSError as error:
        raise UsageError(
            str(report.parent), "cannot be written to", evidence=str(error), hint="choose another"
        ) from error
    return report


def _run_page(
    result: LoadResult,
    verdicts: Sequence[Verdict],
    cost: Cost | None,
    comparison: Comparison | None,
    more: Mapping[str, Any],
) -> str:
    gates = [verdict.gate for verdict in verdicts]
    return rendered(
        "report.html.j2",
        figures(result, gates=gates),
        result=result,
        plan=result.plan,
        name=result.plan.endpoint or result.plan.url,
        badge=page_head.outcome(result, verdicts, comparison),
        banners=page_head.banners([result]),
        cards=page_head.cards(result, cost),
        gates=page_tables.gate_rows(verdicts),
        other_reasons=page_head.other_reasons(result, verdicts),
        servers=server_tables(result.server, result.plan.targets),
        comparison=comparison,
        changes=page_tables.change_rows(comparison) if comparison else [],
        clocks=page_tables.two_clocks(result),
        targets=page_tables.target_rows(result),
        served=[*page_facts.endpoint_facts(result), *page_facts.more_facts(more)],
        generator=page_facts.generator_facts(result),
        cost=cost,
    )


def _series_page(series: LoadSeries, cost: Cost | None, name: str, more: Mapping[str, Any]) -> str:
    results = [run.result for run in series.runs]
    first = results[0]
    return rendered(
        "series.html.j2",
        series_figures(series),
        series=series,
        plan=first.plan,
        first=first,
        name=name or first.plan.endpoint or first.plan.url,
        badge=page_head.series_outcome(series),
        banners=page_head.banners(results),
        cards=page_head.highest_card(series, cost),
        gates=[gate.text for gate in gates_of(series)],
        load_name=load_name(series),
        rows=page_tables.run_rows(series),
        errors=[(f"{load_of(series, result):.4g}", error) for result in results for error in result.errors],
        served=[*page_facts.endpoint_facts(first), *page_facts.more_facts(more)],
        generator=page_facts.generator_facts(first),
        cost=cost,
    )
