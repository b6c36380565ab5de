"""What the page of a tuning says, in words and cells; the template only lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tao2serve.tuning.candidate import KNOBS
from tao2serve.tuning.points import Point, points_of
from tao2serve.tuning.search import Finalist, Tuning

__all__ = ["Row", "Table", "badge", "banners", "cards", "changes", "headline", "rule", "tables"]

_MIB: Final = 2**20
_FEW: Final = 100
_UNITS: Final = {"queue_delay_us": " us"}
_NAMES: Final = {
    "placement": "placement", "instances": "instances", "max_batch_size": "largest batch",
    "queue_delay_us": "queue delay",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate, as a table shows it."""

    number: int
    settings: str
    badge: tuple[str, str] | None  # CSS class and words
    numbers: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose last column is words."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str
    ends_in_words: bool = True


def badge(tuning: Tuning) -> tuple[str, str]:
    if tuning.proposed is None:
        return "bad", "nothing is proposed"
    return ("good", "other settings proposed") if tuning.changes else ("plain", "the present settings stay")


def rule(tuning: Tuning) -> str:
    """Say how it is decided."""
    sought = "median throughput" if tuning.objective == "throughput" else "median p99"
    return (
        "A candidate is proposed if it held every gate and limit in every judged block of the finals, and its "
        f"{sought} of {len(tuning.finals[0].blocks)} blocks is better than that of the present settings by more than "
        "the blocks of either differ among themselves, unless those do not hold. Of candidates that are as good as the "
        "best, the simplest is taken."
    )


def changes(tuning: Tuning) -> list[tuple[str, str, str]]:
    """Return name, present and proposed value of each knob."""
    present, proposed = tuning.present.settings(), tuning.proposed.settings() if tuning.proposed else {}

    def shown(values: dict[str, Any], knob: str) -> str:
        return f"{values[knob]}{_UNITS.get(knob, '')}" if knob in values else "–"

    return [(_NAMES[knob], shown(present, knob), shown(proposed, knob)) for knob in KNOBS]


def cards(tuning: Tuning) -> list[tuple[str, str, str]]:
    """Return name, value and unit of the headline numbers: of the proposed settings, beside the present ones."""
    points = points_of(tuning)
    present = next(point for point in points if point.is_present)
    chosen = next((point for point in points if point.candidate == tuning.proposed), present)
    shown = [("Candidates", f"{len(points)}", "all measured" if tuning.is_whole else f"of {tuning.of_grid} measured")]
    of = "present" if chosen is present else "proposed"

    def add(name: str, value: str, unit: str, before: str) -> None:
        shown.append((f"{name}, {of}", value, unit if chosen is present else f"{unit} · present {before}"))

    add("Throughput", _number(chosen.throughput_rps), "requests/s", _number(present.throughput_rps))
    add("p99", _number(chosen.p99_ms), "ms", _number(present.p99_ms))
    if chosen.memory_bytes is not None:
        add("Triton's memory", _mib(chosen.memory_bytes), "MiB", _mib(present.memory_bytes))
    return shown


def headline(tuning: Tuning) -> dict[str, float]:
    """Return the single values that ClearML shows, those of the present and of the proposed settings."""
    found: dict[str, float] = {"candidates": len(tuning.survey), "changes settings": float(tuning.changes)}
    for point in points_of(tuning):
        names = [*(["present"] if point.is_present else []), *(["proposed"] if point.role == "proposed" else [])]
        for name in names:
            found[f"{name} requests per second"] = point.throughput_rps
            if point.p99_ms is not None:
                found[f"{name} p99 ms"] = point.p99_ms
            if point.memory_bytes is not None:
                found[f"{name} memory MiB"] = point.memory_bytes / _MIB
    return found


def banners(tuning: Tuning) -> list[tuple[str, str, str]]:
    """Return CSS class, head and text of what a reader must know before believing the numbers."""
    found = []
    blocks = [*tuning.survey, *(block for finalist in tuning.finals for block in finalist.blocks)]
    saturated = [block for block in blocks if block.saturated]
    if saturated:
        found.append((
            "warning", f"In {len(saturated)} of {len(blocks)} blocks the load generator was the bottleneck.",
            f"They say nothing of their candidates. The last one: {saturated[-1].saturated}.",
        ))  # fmt: skip
    fewest = min((block.requests - block.failures for block in blocks if block.requests), default=0)
    if 0 < fewest < _FEW:
        found.append((
            "warning", "Few successful requests.",
            f"In a block with {fewest} of them the 99th percentile is the maximum: a longer --run-time tells more.",
        ))  # fmt: skip
    return found


def tables(tuning: Tuning) -> list[Table]:
    points = points_of(tuning)
    has_gpu = any(point.gpu_memory_bytes is not None for point in points)
    heads = ("Answered/s", "p50", "p99, ms", "Failed", "Triton, MiB", *(["GPU, MiB"] if has_gpu else []))
    survey = tuple(_survey_row(point, tuning, has_gpu=has_gpu) for point in points)
    numbers = {point.candidate: point for point in points}
    finals = tuple(
        _final_row(numbers[finalist.candidate], finalist, tuning, has_gpu=has_gpu) for finalist in tuning.finals
    )
    return [
        Table(
            title="Finals", heads=("", "Settings", *heads, "Judged", "Why not"), rows=finals,
            note="Medians of the blocks that are judged, the least and the most in brackets; failures of all blocks.",
        ),
        Table(
            title="Survey", heads=("", "Settings", *heads, "Why not"), rows=survey,
            note="Each candidate once, in this order. It only decides who comes to the finals.",
        ),
    ]  # fmt: skip


def _badge_of(point: Point, tuning: Tuning) -> tuple[str, str] | None:
    if point.candidate == tuning.proposed:
        return "good", "proposed" if tuning.changes else "present, stays"
    return ("plain", "present") if point.is_present else None


def _survey_row(point: Point, tuning: Tuning, *, has_gpu: bool) -> Row:
    found = tuning.survey[point.number - 1]
    return Row(
        number=point.number,
        settings=str(point.candidate),
        badge=_badge_of(point, tuning),
        numbers=(
            _number(found.throughput_rps), _number(found.p50_ms), _number(found.p99_ms),
            f"{found.failures:,}", _mib(found.memory_bytes),
            *([_mib(found.gpu_memory_bytes)] if has_gpu else []),
        ),
        words="; ".join(found.reasons) or ("the client was saturated" if found.saturated else ""),
    )  # fmt: skip


def _final_row(point: Point, finalist: Finalist, tuning: Tuning, *, has_gpu: bool) -> Row:
    judged = finalist.judged or finalist.blocks
    words = list(point.reasons)
    if any(block.saturated for block in finalist.blocks):
        words.append("else the client was saturated" if words else "the client was saturated in the others")
    return Row(
        number=point.number,
        settings=str(point.candidate),
        badge=_badge_of(point, tuning),
        numbers=(
            _ranged(point.throughput_rps, [block.throughput_rps for block in judged]),
            _number(point.p50_ms),
            _ranged(point.p99_ms, [block.p99_ms for block in judged]),
            f"{sum(block.failures for block in finalist.blocks):,}", _mib(point.memory_bytes),
            *([_mib(point.gpu_memory_bytes)] if has_gpu else []),
            f"{len(finalist.judged)} of {len(finalist.blocks)}",
        ),
        words="; ".join(words),
    )  # fmt: skip


def _ranged(median: float | None, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if median is None or not known:
        return "–"
    return f"{_number(median)} ({_number(min(known))}–{_number(max(known))})"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mib(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / _MIB:,.0f}"
