"""The page of a tuning: whole, offline, safe against what servers say, and with the numbers of the document."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuning_samples import BEST, GRID, MIB, PRESENT, UNLOADED, measured, tuning_outcome

from tao2serve.errors import UsageError
from tao2serve.tuned import read_tuned
from tao2serve.tuning.candidate import Candidate, parse_values
from tao2serve.tuning.measurement import Measurement
from tao2serve.tuning.page import headline
from tao2serve.tuning.points import efficient, points_of
from tao2serve.tuning.report import figures_of, write_outcome

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome = tuning_outcome(tmp_path_factory.mktemp("tune"), memory_bytes=600 * MIB)
    return Path(write_outcome(outcome).report or "")


def own_part(page: str) -> str:
    """Return the page without plotly.js."""
    return page.replace(max(re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL), key=len), "")


def test_settings_numbers_and_page_lie_together(written: Path) -> None:
    """And say the same: the page names what is proposed, why, and what was left out."""
    assert sorted(path.name for path in written.parent.iterdir()) == ["tuned.toml", "tuning.html", "tuning.json"]
    told = json.loads((written.parent / "tuning.json").read_text(encoding="utf-8"))
    assert (told["proposed"], told["report"]) == (BEST.settings(), str(written))
    assert read_tuned(written.parent / "tuned.toml").settings == BEST.settings()
    assert read_tuned(written.parent / "tuned.toml").hardware == told["hardware"]
    page = own_part(written.read_text(encoding="utf-8"))
    for words in ("Tuning of street/4", "other settings proposed", told["reason"], "memory of Triton 600 MiB",
                  "the search is local", "4 instances", "no GPU serves", "EPYC &lt;b&gt;", "none seen"):  # fmt: skip
        assert words in page
    assert page.count("figure-json") == 4  # three, and the script that draws them
    assert {one["what"] for one in told["skipped"]} >= {"4 instances", "a delay with batch 1"}


def test_the_page_needs_no_network_and_runs_no_foreign_script(written: Path) -> None:
    """Whatever a server says is text."""
    page = own_part(written.read_text(encoding="utf-8"))
    assert not re.findall(r"(?:src|href)=", page)
    assert "<script>alert" not in page
    assert "it does not load: &lt;/script&gt;" in page


def test_marks_lie_at_the_medians_that_are_proposed_by() -> None:
    """A finalist by its judged blocks and with their spread, others by their only one; the proposed one on top."""
    outcome = tuning_outcome(Path("unused"))
    points = points_of(outcome.tuning)
    (best,) = [point for point in points if point.candidate == BEST]
    assert (best.role, best.throughput_rps, len(best.blocks)) == ("proposed", 98.0, 3)
    assert [point.role for point in points if point.reasons == (UNLOADED,)] == ["does not hold"]
    first = figures_of(outcome)[0]
    last = first.data[-2]  # the limit is drawn after it
    assert (last.name, list(last.x), list(last.error_x.array), list(last.error_x.arrayminus)) == (
        "proposed", [98.0], [1.0], [1.0],
    )  # fmt: skip
    assert sum(len(trace.x) for trace in first.data if trace.mode == "markers+text") == len(points) - 1


def test_a_trade_off_has_only_what_is_not_beaten_in_both() -> None:
    """By falling throughput also falling latency; what does not hold is none."""

    def other(candidate: Candidate, block: int) -> Measurement:
        found = measured(candidate, block)
        return replace(found, p99_ms=found.throughput_rps / 2, reasons=()) if found.p99_ms else found

    points = points_of(tuning_outcome(Path("unused"), measure=other).tuning)
    line = efficient(points, lambda point: point.throughput_rps, lambda point: point.p99_ms)
    numbers = [(point.throughput_rps, point.p99_ms) for point in line]
    assert numbers == sorted(numbers, reverse=True)
    assert len(line) > 2
    assert all(point.p99_ms is not None for point in line)


def test_at_a_given_rate_latency_is_set_against_memory() -> None:
    """There all have the same throughput; without memory the rate is all there is."""
    titles = [figure.layout.title.text for figure in figures_of(tuning_outcome(Path("unused"), objective="p99"))]
    assert titles == ["Latency over memory", "The finals, block by block"]

    def elsewhere(candidate: Candidate, block: int) -> Measurement:
        return replace(measured(candidate, block), memory_bytes=None)

    drawn = figures_of(tuning_outcome(Path("unused"), objective="p99", measure=elsewhere))
    assert next(figure.layout.title.text for figure in drawn) == "Latency over answered rate, by setting"


@pytest.mark.parametrize(
    ("change", "badge"),
    [
        ({"reasons": ("p99=60ms was missed by 5 ms",)}, "nothing is proposed"),
        ({"saturated": "it woke late"}, "nothing is proposed"),
        ({"throughput_rps": 0.0, "p50_ms": None, "p99_ms": None, "reasons": ("no answer",)}, "nothing is proposed"),
        ({"throughput_rps": 50.0, "reasons": ()}, "the present settings stay"),
    ],
)
def test_a_tuning_that_changes_nothing_has_a_page_too(tmp_path: Path, change: dict[str, Any], badge: str) -> None:
    """Whatever the reason: nothing held, nothing was judged, nothing answered, or nothing is better."""
    outcome = write_outcome(tuning_outcome(
        tmp_path, measure=lambda candidate, block: replace(measured(candidate, block), **change)
    ))  # fmt: skip
    assert outcome.report is not None
    assert badge in own_part(outcome.report.read_text(encoding="utf-8"))
    assert (outcome.tuned is None) == (badge == "nothing is proposed") == (not (tmp_path / "tuned.toml").is_file())


def test_a_proposal_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    """Beside the word that nothing holds it would be used."""
    write_outcome(tuning_outcome(tmp_path))
    assert (tmp_path / "tuned.toml").is_file()
    write_outcome(tuning_outcome(tmp_path, measure=lambda one, block: replace(measured(one, block), reasons=("no",))))
    assert not (tmp_path / "tuned.toml").exists()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """As the load test's reports tell it."""
    with pytest.raises(UsageError, match="cannot be written to"):
        write_outcome(tuning_outcome(tmp_path / "not" / "there"))


def test_what_was_left_out_is_named_once_and_with_its_reason() -> None:
    """A grid that is measured whole leaves only the finals; values of --try are nobody's to explain."""
    given = parse_values(["placement=endpoint", "instances=1,2", "max_batch_size=4,8", "queue_delay_us=0"])
    outcome = tuning_outcome(Path("unused"), grid=replace(GRID, **given), given=given)
    assert [one.what for one in outcome.skipped if not one.what[0].isdigit()] == []
    finals = {str(finalist.candidate) for finalist in outcome.tuning.finals}
    named = {one.what.partition(": ")[2] for one in outcome.skipped if ": " in one.what}
    assert named == {str(found.candidate) for found in outcome.tuning.survey} - finals


def test_headline_numbers_are_of_the_present_and_the_proposed_settings() -> None:
    """As ClearML shows them; where the present settings stay they are both."""
    numbers = headline(tuning_outcome(Path("unused")).tuning)
    assert (numbers["present requests per second"], numbers["proposed requests per second"]) == (60.0, 98.0)
    assert numbers["changes settings"] == 1
    same = replace(measured(PRESENT, 0), reasons=())
    flat = tuning_outcome(Path("unused"), measure=lambda one, block: replace(same, candidate=one, block=block))
    stays = headline(flat.tuning)
    assert stays["present p99 ms"] == stays["proposed p99 ms"]
