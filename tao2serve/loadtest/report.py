"""The report of a load test: one HTML page that needs no network, with JSON and CSV beside it.

The page carries the whole of plotly.js (4.8 MB) from the installed package. That buys three things: the same
figures go to ClearML, points can be hovered and zoomed, and the page opens on a machine without network.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tao2serve.errors import UsageError
from tao2serve.loadtest.figures import figures
from tao2serve.loadtest.gates import Verdict, document, passed
from tao2serve.loadtest.plan import make_directory
from tao2serve.loadtest.result import LoadResult

__all__ = ["write_report"]

_ENVIRONMENT_NAMES = {
    "cpu_model": "CPU",
    "cpu_count": "CPUs usable",
    "system": "System",
    "python": "Python",
    "locust": "locust",
    "tao2serve": "tao2serve",
    "images": "Images",
}


def write_report(result: LoadResult, *, verdicts: Sequence[Verdict] = (), directory: Path) -> Path:
    """Write report.html, result.json and requests.csv into `directory` and return the path of the page.

    The directory may exist; these files in it are replaced, each as a whole. Raises InputError if it cannot
    be written to, ToolError if plotly is not installed.
    """
    report = directory.resolve() / "report.html"
    page = _page(result, verdicts)
    told = json.dumps(document(result, verdicts, report=report), indent=2) + "\n"
    try:
        make_directory(directory)
        _replace(report.with_name("requests.csv"), _requests_csv(result))
        _replace(report.with_name("result.json"), told)
        _replace(report, page)
    except OSError as error:
        raise UsageError(str(directory), "cannot be written to", evidence=str(error), hint="choose another") from error
    return report


def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _requests_csv(result: LoadResult) -> str:
    """One row per request, warm-up included; times in seconds since the start of the run time."""
    stages = list(dict.fromkeys(stage for record in result.records for stage in record.timing_ms or {}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["phase", "user", "image", "intended_s", "start_s", "latency_ms", "status", "error", "detail"]
    writer.writerow(fixed + [f"server_{stage}_ms" for stage in stages])
    for record in result.records:
        phase = "warmup" if record.start_s < 0 else "run"
        row: list[object] = [phase, record.user, record.image, record.intended_s, record.start_s]
        row += [record.latency_ms, record.status, record.error, record.detail]
        writer.writerow(row + [(record.timing_ms or {}).get(stage, "") for stage in stages])
    return text.getvalue()


def _page(result: LoadResult, verdicts: Sequence[Verdict]) -> str:
    drawn = figures(result)
    from jinja2 import Environment, PackageLoader
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=PackageLoader("tao2serve.loadtest", "."), autoescape=True)
    template = environment.get_template("report.html.j2")
    return template.render(
        result=result,
        plan=result.plan,
        name=result.plan.endpoint or result.plan.url,
        verdicts=verdicts,
        outcome=_outcome(result, verdicts),
        cards=_cards(result),
        warnings=_warnings(result),
        figures=[_figure(figure) for figure in drawn],
        environment=[(_ENVIRONMENT_NAMES.get(key, key), value) for key, value in result.environment.items()],
        plotly_js=get_plotlyjs(),
    )


def _outcome(result: LoadResult, verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """Return CSS class and words for the badge."""
    if not passed(result, verdicts):
        return "bad", "gates missed" if result.successes else "no request succeeded"
    return ("good", "gates passed") if verdicts else ("plain", "no gates set")


def _cards(result: LoadResult) -> list[tuple[str, str, str]]:
    """Return name, value and unit of the headline numbers."""
    cards = [("Throughput", _number(result.throughput_rps), "req/s")]
    if result.latency_ms is not None:
        latency_ms = result.latency_ms.to_dict()
        cards += [(name, _number(latency_ms[name]), "ms") for name in ("p50", "p95", "p99", "max")]
    ratio = result.failure_ratio or 0.0
    return [*cards, ("Failures", f"{result.failures:,}", f"of {result.requests:,} · {ratio:.2%}")]


def _number(value: float) -> str:
    """Three significant digits below a thousand, whole numbers above."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _warnings(result: LoadResult) -> list[str]:
    """Return what a reader must know before believing the numbers."""
    warnings = []
    if result.client.saturated:
        warnings.append(f"Client saturated: {result.client.reason}.")
    if 0 < result.successes < 100:
        warnings.append(f"{result.successes} successful requests: the 99th percentile is their maximum.")
    return warnings


def _figure(figure: Any) -> dict[str, str]:
    """Return title and JSON; the page sets fonts and colours itself, for light and dark."""
    title = figure.layout.title.text
    figure = figure.update_layout(template=None, title=None)
    # `</script>` in a text of the server would end the element that holds the JSON
    return {
        "title": title,
        "json": figure.to_json().replace("</", "<\\/"),
        "height": str(figure.layout.height),
    }
