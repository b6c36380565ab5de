"""The page of a tuning in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, CUT_OFF, STICKING_OUT, Page, browser
from PIL import Image
from tuning_samples import MIB, measured, tuning_outcome

from tao2serve.tuning.report import write_outcome

pytest.importorskip("plotly")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium: apt-get install chromium"),
]
# The narrowest value beside a name in the lists of facts: one of a letter's width is read by nobody.
NARROWEST = "Math.min(...[...document.querySelectorAll('dd')].map(value => value.getBoundingClientRect().width))"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One for throughput with everything that a page can show, and one at a given rate where nothing holds."""
    folder, long = tmp_path_factory.mktemp("tunings"), "x" * 200
    most = tuning_outcome(folder / "most", name=f"street{long[:60]}", memory_bytes=600 * MIB)
    least = tuning_outcome(
        folder / "least", objective="p99", measure=lambda one, block: replace(measured(one, block), reasons=(long,))
    )
    found = {}
    for name, outcome in (("most", most), ("least", least)):
        (folder / name).mkdir()
        report = write_outcome(replace(outcome, reported_to="1" * 32)).report
        assert report is not None
        found[name] = report
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["most", "least"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_tuning_is_whole(
    written: dict[str, Path], page: Page, name: str, width: int, scheme: str
) -> None:
    """Figures are drawn, nothing sticks out or is cut off, facts can be read, nothing is loaded, no script fails."""
    page.open(written[name], width=width, scheme=scheme)
    drawn = page.value("[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length)")
    assert len(drawn) == {"most": 3, "least": 2}[name]
    assert all(drawn)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(STICKING_OUT) == []
    assert page.value(CUT_OFF) == []
    assert page.value(NARROWEST) > 100
    assert page.asked == [written[name].as_uri()]
    assert page.complaints == []
    with Image.open(io.BytesIO(page.picture())) as picture:
        brightness = sum(picture.convert("RGB").getpixel((2, 2)))  # type: ignore[arg-type]
    assert brightness > 600 if scheme == "light" else brightness < 150
