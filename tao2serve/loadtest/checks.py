"""What another process says of requests, held to what can be: a summary of anything else would be no numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.records import CpuSample, Row

__all__ = ["LARGEST_MS", "STAGES", "Checks", "are_timings"]

STAGES: Final = 20  # names that a server's account of its time may have; each becomes a column of requests.csv
LARGEST_MS: Final = 1e9
_NAME_LENGTH: Final = 60
_TEXT_LENGTH: Final = 1000
_CLOCK_S: Final = 60.0  # that a request may start before the warm-up or after the last one


def are_timings(timing_ms: object) -> bool:
    """Whether it is a mapping of at most STAGES short names to milliseconds that can be."""
    return (
        isinstance(timing_ms, Mapping)
        and len(timing_ms) <= STAGES
        and all(isinstance(stage, str) and 0 < len(stage) <= _NAME_LENGTH for stage in timing_ms)
        and all(_is_number(duration, 0.0, LARGEST_MS) for duration in timing_ms.values())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Of what one worker sends; both raise ValueError or TypeError, saying what is wrong."""

    assignment: Assignment
    images: int
    _stages: set[str] = field(default_factory=set)

    def row(self, row: Row) -> Row:
        user, image, intended_s, start_s, latency_ms, status, error, detail, timing_ms, target = row
        first_s = -self.assignment.warmup_s - _CLOCK_S
        last_s = self.assignment.run_time_s + self.assignment.timeout_s + _CLOCK_S
        _require("user", user, _is_index(user, max(self.assignment.users, 1)))
        _require("image", image, _is_index(image, self.images))
        _require("intended_s", intended_s, _is_number(intended_s, first_s, last_s))
        _require("start_s", start_s, _is_number(start_s, first_s, last_s))
        _require("latency_ms", latency_ms, _is_number(latency_ms, 0.0, LARGEST_MS))
        _require("status", status, _is_index(status, 1000))
        for name, text in (("error", error), ("detail", detail)):
            _require(name, text, isinstance(text, str) and len(text) <= _TEXT_LENGTH)
        _require("target", target, _is_index(target, len(self.assignment.targets)))
        if timing_ms is not None:
            _require("timing_ms", timing_ms, are_timings(timing_ms))
            self._stages.update(timing_ms)
            _require("timing_ms", f"{len(self._stages)} stages", len(self._stages) <= STAGES)
        return row

    def sample(self, row: Sequence[Any], process: int) -> CpuSample:
        at_s, used_s, thread_s, waited_s, late_ms, _ = row
        seconds = {"at_s": at_s, "used_s": used_s, "thread_s": thread_s, "waited_s": waited_s}
        for name, value in seconds.items():
            _require(name, value, _is_number(value, -LARGEST_MS, LARGEST_MS))
        for late in late_ms:
            _require("late_ms", late, _is_number(late, -LARGEST_MS, LARGEST_MS))
        return CpuSample(**seconds, late_ms=tuple(late_ms), process=process)


def _is_number(value: object, lowest: float, highest: float) -> bool:
    """Neither a text nor a truth, nor infinite, nor none at all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return lowest <= value <= highest  # which nan is not


def _is_index(value: object, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _require(name: str, value: object, is_possible: bool) -> None:
    if not is_possible:
        raise ValueError(f"{name} is {str(value)[:100]!r}")
