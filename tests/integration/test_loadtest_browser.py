"""The report of load tests in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, CUT_OFF, STICKING_OUT, Page, browser
from loadtest_samples import record, result
from PIL import Image

from tao2serve.loadtest import OpenLoop, Target, evaluate, parse_gate, write_report
from tao2serve.loadtest.compare import compare_with
from tao2serve.loadtest.report import write_series_report
from tao2serve.loadtest.series import HighestRate, LoadSeries, judged

pytest.importorskip("plotly")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium: apt-get install chromium"),
]

TIMING = {"preprocess": 2.0, "infer": 5.0, "postprocess": 1.0, "total": 8.5}
GATES = [parse_gate("p99=12ms"), parse_gate("throughput=1000rps"), parse_gate("failure-ratio=1%")]
LONG = "x" * 300


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with everything that a page can show, and a search."""
    folder = tmp_path_factory.mktemp("reports")
    records = [record(index / 40 - 1, 10 + index % 9, timing_ms=TIMING) for index in range(440)]
    failed = [record(5, 3, error="HTTP 503", detail=LONG)]
    closed = result([*records, *failed])
    saturated = replace(closed.client, saturated=True, reason=f"the load generator was busy {LONG}")
    targets = (*closed.plan.targets, Target(url="127.0.0.1:8001", protocol="triton-grpc", model="people_4"))
    plan = replace(closed.plan, targets=targets, shape=OpenLoop(rate_rps=40), endpoint=f"people{LONG[:60]}/4")
    one = replace(closed, plan=plan, client=saturated, environment={**closed.environment, "gpu": LONG})
    write_report(closed, directory=folder / "old")
    comparison = compare_with(folder / "old" / "result.json", one)
    gates = [parse_gate("p99=50ms"), GATES[2]]
    runs = tuple(
        judged(replace(closed, plan=replace(closed.plan, shape=OpenLoop(rate_rps=rate))), gates)
        for rate in (5, 40, 640)
    )
    highest = HighestRate(gates=tuple(gates), holds_rps=5, fails_rps=40, confidence="It held in 3 of 3 runs.")
    return {
        "run": write_report(
            one, verdicts=evaluate(one, GATES), directory=folder / "run", comparison=comparison, price_per_hour=1.25
        ),
        "series": write_series_report(
            LoadSeries(runs=runs, highest=highest), directory=folder / "series", price_per_hour=1.25
        ),
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["run", "series"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_whole(reports: dict[str, Path], page: Page, name: str, width: int, scheme: str) -> None:
    """All figures are drawn, nothing sticks out or is cut off, nothing is loaded, no script fails."""
    page.open(reports[name], width=width, scheme=scheme)
    drawn = page.value("[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length)")
    assert len(drawn) == 4
    assert all(drawn)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(STICKING_OUT) == []
    assert page.value(CUT_OFF) == []
    assert page.asked == [reports[name].as_uri()]
    assert page.complaints == []
    # the corner is the page's own colour
    with Image.open(io.BytesIO(page.picture())) as picture:
        brightness = sum(picture.convert("RGB").getpixel((2, 2)))  # type: ignore[arg-type]
    assert brightness > 600 if scheme == "light" else brightness < 150


def test_figures_follow_the_scheme(reports: dict[str, Path], page: Page) -> None:
    """Who turns the light off while the page is open gets light letters on the figures too."""
    page.open(reports["run"], width=1280, scheme="light")
    colour = "getComputedStyle(document.querySelector('.figure .xtick text')).fill"
    before = page.value(colour)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.value("new Promise(done => setTimeout(done, 300))")
    assert page.value(colour) != before
