"""The report: one page, complete, offline, and safe against what servers say."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from loadtest_samples import record, result

from tao2serve.errors import UsageError
from tao2serve.loadtest import LoadResult, evaluate, figures, parse_gate, write_report

pytest.importorskip("plotly")

TIMING = {"preprocess": 2.0, "infer": 5.0, "postprocess": 1.0, "total": 8.5}


def sample(count: int = 400) -> LoadResult:
    answered = [record(-1 + index * 11 / count, 10 + index % 7, timing_ms=TIMING) for index in range(count)]
    failed = [record(4.5, 3, error="HTTP 503", detail="</script><script>alert(1)</script>")]
    return result([*answered, *failed])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = sample()
    gates = [parse_gate("p99=50ms"), parse_gate("throughput=1000rps")]
    return write_report(
        found, verdicts=evaluate(found, gates), directory=tmp_path_factory.mktemp("load") / "deep" / "er"
    )


def test_three_files_lie_together(written: Path) -> None:
    """The page, the document of the contract, and every request."""
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "report.html",
        "requests.csv",
        "result.json",
    ]
    told = json.loads((written.parent / "result.json").read_text(encoding="utf-8"))
    assert (told["report"], told["passed"]) == (str(written), False)
    assert told["slo"][1]["missed_by"]["text"] == "964 rps (96.4 %)"
    rows = list(csv.DictReader((written.parent / "requests.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 401
    assert sum(row["phase"] == "run" for row in rows) == told["requests"]
    assert float(rows[0]["server_infer_ms"]) == 5
    assert {row["target"] for row in rows} == {"/serve/people/4"}
    assert all(float(row["response_ms"]) == float(row["latency_ms"]) for row in rows)


def own_part(page: str) -> str:
    """Return the page without plotly.js, which holds addresses of its own that it calls for maps only."""
    longest = max(re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL), key=len)
    assert len(longest) > 1_000_000
    return page.replace(longest, "")


def test_the_page_needs_no_network(written: Path) -> None:
    """Nothing is loaded from anywhere, and the whole stays below 6 MB."""
    page = written.read_text(encoding="utf-8")
    assert len(page.encode()) < 6 * 2**20
    assert not re.search(r"""(src|href)\s*=|@import|url\(|fetch\(""", own_part(page))


def test_the_page_says_what_was_measured(written: Path) -> None:
    """Name, verdicts, headline numbers, stages, failures and environment are on it."""
    page = own_part(written.read_text(encoding="utf-8"))
    for text in (
        "people/4",
        "gates missed",
        "964 rps (96.4 %)",
        "Latency and throughput over time",
        "Distribution of latency",
        "Latency by percentile",
        "Where the time goes",
        "outside the server",
        "HTTP 503",
        "2.47.0",
        "prefers-color-scheme: dark",
        "width=device-width",
    ):
        assert text in page


def test_the_page_says_how_sure_a_gate_is(tmp_path: Path) -> None:
    """Requests beyond a percentile's limit, and the confidence, as the document has them."""
    found = result([record(index / 100, 60 if index == 500 else 10) for index in range(1000)])
    page = write_report(found, verdicts=evaluate(found, [parse_gate("p99=50ms")]), directory=tmp_path)
    verdict = json.loads((tmp_path / "result.json").read_text("utf-8"))["slo"][0]
    shown = own_part(page.read_text("utf-8"))
    assert verdict["beyond"] == 1
    assert f"at most {int(1000 * verdict['confidence']) / 10:g} %" in shown
    assert "Beyond it" in shown


def test_what_a_server_says_is_only_text(written: Path) -> None:
    """Markup in an error text or an environment value is shown, never run."""
    page = written.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "EPYC &lt;b&gt;" in page


def test_the_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    """A directory may exist with an older report and with other files, which stay."""
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    (tmp_path / "locust.log").write_text("log", encoding="utf-8")
    write_report(sample(), directory=tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "locust.log",
        "report.html",
        "requests.csv",
        "result.json",
    ]


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    """What cannot be written to is wrong usage, as everywhere, not a defect."""
    (tmp_path / "load").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(sample(), directory=tmp_path / "load")


def test_a_test_without_an_answer_has_a_report(tmp_path: Path) -> None:
    """Only failures, or nothing at all: the page says so."""
    for number, found in enumerate([result([record(1, 5, error="timeout")]), result([])]):
        page = write_report(found, directory=tmp_path / str(number)).read_text(encoding="utf-8")
        assert "no request succeeded" in page


def test_figures_are_values_with_titles() -> None:
    """The same figures can go to ClearML: each has a title and converts to JSON; the stages need timing."""
    titles = [figure.layout.title.text for figure in figures(sample())]
    assert len(titles) == 4
    assert all(titles)
    assert len(figures(result([record(1, 5)]))) == 3
    assert len(figures(result([]))) == 1


def test_a_long_test_is_thinned_in_the_figure_only() -> None:
    """Tens of thousands of points make no page slow, and the slowest request is still among them."""
    found = result([record(index / 2500, 10 + index % 5) for index in range(20_000)] + [record(9, 99)])
    points = figures(found)[0].data[0]
    assert len(points.x) <= 3000
    assert max(points.y) == 99
