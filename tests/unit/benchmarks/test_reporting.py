"""What serving benchmarks make of their blocks, and how they put it into a document."""

from __future__ import annotations

from pathlib import Path

import pytest
import reporting
from load_client import Block
from reporting import Series


def block(*latencies_ms: float, elapsed_s: float = 1.0, client_cpu_s: float = 0.01) -> Block:
    timings = tuple({"infer": latency / 2} for latency in latencies_ms)
    return Block(
        latencies_ms=latencies_ms, elapsed_s=elapsed_s, client_cpu_s=client_cpu_s, last_answer={}, timings_ms=timings
    )


def test_one_disturbed_round_moves_neither_median_nor_throughput() -> None:
    """Rates are medians over rounds; only the 99th percentile is of all requests."""
    series = Series()
    for each, cpu_s in ((block(9, 10, 11), 0.3), (block(10, 10, 10), 0.3), (block(500, 600, 700, elapsed_s=3.0), 9.0)):
        series.add(each, cpu_s=cpu_s)
    assert series.p50_ms == 10
    assert series.throughput_rps == 3.0
    assert series.p99_ms == 700
    assert series.timing_ms("infer") == 5
    assert series.cpu_ms == pytest.approx(100)
    assert series.requests == 9


def test_a_busy_client_is_called_saturated() -> None:
    """Figures of a load client that had a core to itself for all of the time are its own."""
    assert Series([block(1, client_cpu_s=0.95)], [0.1]).to_dict()["is_client_saturated"]
    assert not Series([block(1, client_cpu_s=0.5)], [0.1]).to_dict()["is_client_saturated"]


def test_rounds_end_when_the_time_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up and one round are always made, no further one that would pass the limit."""
    now = 0.0
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now)
    made = []
    for number in reporting.rounds_within(5, limit_s=35.0):
        made.append(number)
        now += 10.0
    assert made == [0, 1, 2]  # a third round would end at 40
    made = []
    for number in reporting.rounds_within(2, limit_s=0.0):
        made.append(number)
        now += 10.0
    assert made == [0, 1]


def test_rounds_change_the_order() -> None:
    """Whoever comes first in one round comes last in the next."""
    assert reporting.in_turn("abc", 1) == ["a", "b", "c"]
    assert reporting.in_turn("abc", 2) == ["c", "b", "a"]


def test_a_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """Text around a section's marks stays as it was, however often it is written."""
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n<!-- two -->\n<!-- /two -->\n")
    for text in ("first", "second\n\n| a |"):
        reporting.replace_section("one", text, document=path)
    assert path.read_text() == (
        "before\n<!-- one -->\n\nsecond\n\n| a |\n\n<!-- /one -->\nafter\n<!-- two -->\n<!-- /two -->\n"
    )
    with pytest.raises(ValueError, match="no section three"):
        reporting.replace_section("three", "text", document=path)


def test_the_document_has_a_section_for_each_benchmark() -> None:
    """`--write` of every serving benchmark finds its place in docs/performance.md."""
    text = reporting.DOCUMENT.read_text(encoding="utf-8")
    for name in ("stock_path", "placement", "floor"):
        assert f"<!-- {name} -->\n" in text
        assert f"<!-- /{name} -->" in text


def test_a_table_is_markdown() -> None:
    """A head, a rule and a line a row."""
    assert reporting.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
