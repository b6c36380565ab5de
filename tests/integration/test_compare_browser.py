"""The page of a comparison in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, CUT_OFF, STICKING_OUT, Page, browser
from comparison_samples import compared, comparison

from tao2serve.comparison.figure import accuracy_over_latency
from tao2serve.comparison.page import write_page

pytest.importorskip("plotly")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium: apt-get install chromium"),
]

LONG = "detectnet_v2_" + "x" * 120


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with as many models as can be compared, long names, one that was not run."""
    models = [
        compared(letter, mean=0.9 + place / 200, latency_ms=5 + 3 * place, name=LONG if place == 1 else "")
        for place, letter in enumerate("ABCDEFGHIJK")
    ]
    lost = compared("L", mean=0.5, latency_ms=None, why_not=f"was never uploaded: {LONG}")
    whole = comparison(*models, lost, notes=(f"L: {LONG} <b>was never uploaded</b>",))
    return write_page(whole, accuracy_over_latency(whole), directory=tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole(written: Path, page: Page, width: int, scheme: str) -> None:
    """The plot is drawn, nothing sticks out or is cut off, nothing is loaded, no script fails, names are text."""
    page.open(written, width=width, scheme=scheme)
    assert page.value("document.querySelectorAll('.figure .main-svg').length") > 0
    assert page.value("document.querySelectorAll('.figure .scatterlayer .trace').length") == 11
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(STICKING_OUT) == []
    assert page.value(CUT_OFF) == []
    assert page.value("document.querySelectorAll('.note b').length") == 0
    assert page.asked == [written.as_uri()]
    assert page.complaints == []


def test_a_page_without_a_plot_is_written_too(tmp_path: Path) -> None:
    """With --no-measure there is the table alone, and the document beside it."""
    two = comparison(compared("A", mean=0.9, latency_ms=None), compared("B", mean=0.8, latency_ms=None))
    page = write_page(two, accuracy_over_latency(two), directory=tmp_path / "new")
    assert "Accuracy over latency" not in page.read_text(encoding="utf-8")
    assert (tmp_path / "new" / "compare.json").is_file()
