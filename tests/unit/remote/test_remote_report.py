"""What of a command's document is shown on its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tao2serve.remote.report import facts, numbers, report

DOCUMENT: dict[str, Any] = {
    "outcome": "ok", "latency_ms": {"p99": 12.5, "p50": None}, "requests": 40, "passed": True,
    "slo": [{"gate": "p99=1s", "passed": True}], "warnings": ["a", "b"], "empty": [],
    "steps": [{"name": "load test", "seconds": 2.5, "detail": "40 requests"}],
}  # fmt: skip


class _Task:
    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.values: dict[str, float] = {}
        self.pages: list[str] = []

    def get_logger(self) -> _Task:
        return self

    def report_table(self, title: str, _series: str, *, iteration: int, table_plot: Any) -> None:
        self.tables[title] = (iteration, table_plot)

    def report_single_value(self, name: str, value: float) -> None:
        self.values[name] = value

    def upload_artifact(self, name: str, **_: Any) -> None:
        self.pages.append(name)

    def flush(self, **_: Any) -> None:
        """Nothing waits."""


def test_facts_are_told_by_their_path() -> None:
    """What is empty is left out, and steps have a table of their own."""
    assert dict(facts(DOCUMENT)) == {
        "outcome": "ok", "latency_ms.p99": 12.5, "requests": 40, "passed": True, "slo.1.gate": "p99=1s",
        "slo.1.passed": True, "warnings": "a, b",
    }  # fmt: skip


def test_figures_are_those_that_runs_are_compared_by() -> None:
    """No verdict is a figure."""
    assert dict(numbers(DOCUMENT)) == {"latency_ms.p99": 12.5, "requests": 40.0}


def test_a_report_has_tables_figures_and_pages(tmp_path: Path) -> None:
    """Steps in their order; HTML pages become artifacts, other files do not."""
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "result.json").write_text("{}")
    task = _Task()
    report(task, DOCUMENT, [tmp_path])
    assert task.tables["steps"][1][1:] == [["load test", 2.5, "40 requests"]]
    assert ["slo.1.gate", "p99=1s"] in task.tables["facts"][1]
    assert task.values["latency_ms.p99"] == 12.5
    assert task.pages == ["report"]
    silent = _Task()
    report(silent, None, [])
    assert not silent.tables
