"""Each candidate as one point: what is known best of it, and what became of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tao2serve.tuning.candidate import Candidate
from tao2serve.tuning.measurement import Measurement
from tao2serve.tuning.search import Finalist, Tuning

__all__ = ["ROLES", "Point", "Role", "efficient", "points_of"]

Role: TypeAlias = Literal["proposed", "present settings", "holds", "does not hold", "not judged"]
ROLES: Final[tuple[Role, ...]] = ("proposed", "present settings", "holds", "does not hold", "not judged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A candidate by its blocks of the finals, else by its one block of the survey; numbers are medians of those."""

    number: int  # in the order of the survey, from 1
    candidate: Candidate
    role: Role
    is_present: bool
    blocks: tuple[Measurement, ...]
    reasons: tuple[str, ...]  # why it is not proposed, whatever its numbers
    finalist: Finalist | None

    @property
    def throughput_rps(self) -> float:
        return statistics.median(block.throughput_rps for block in self.blocks)

    @property
    def p50_ms(self) -> float | None:
        return _median([block.p50_ms for block in self.blocks])

    @property
    def p99_ms(self) -> float | None:
        return _median([block.p99_ms for block in self.blocks])

    @property
    def memory_bytes(self) -> int | None:
        """The most that any block saw, of Triton's processes together."""
        return max((block.memory_bytes for block in self.blocks if block.memory_bytes is not None), default=None)

    @property
    def gpu_memory_bytes(self) -> int | None:
        return max(
            (block.gpu_memory_bytes for block in self.blocks if block.gpu_memory_bytes is not None), default=None
        )


def points_of(tuning: Tuning) -> tuple[Point, ...]:
    """Return a point for each candidate of the survey, in its order."""
    finals = {finalist.candidate: finalist for finalist in tuning.finals}
    return tuple(
        _point(number, found, finals.get(found.candidate), tuning) for number, found in enumerate(tuning.survey, 1)
    )


def _point(number: int, found: Measurement, finalist: Finalist | None, tuning: Tuning) -> Point:
    blocks = (finalist.judged or finalist.blocks) if finalist else (found,)
    seen = finalist.blocks if finalist else (found,)
    return Point(
        number=number,
        candidate=found.candidate,
        role=_role(found, finalist, tuning),
        is_present=found.candidate == tuning.present,
        blocks=blocks,
        reasons=tuple(dict.fromkeys(reason for block in seen for reason in block.reasons)),
        finalist=finalist,
    )


def _role(found: Measurement, finalist: Finalist | None, tuning: Tuning) -> Role:
    if found.candidate == tuning.proposed:
        return "proposed"
    if found.candidate == tuning.present:
        return "present settings"
    if finalist is not None:
        fails = any(block.reasons for block in finalist.blocks)
        return "holds" if finalist.holds else "does not hold" if fails else "not judged"
    return "holds" if found.holds else "does not hold" if found.reasons else "not judged"


def efficient(
    points: Sequence[Point], gain: Callable[[Point], float | None], cost: Callable[[Point], float | None]
) -> list[Point]:
    """Return the points that hold and than which no other that holds gains as much for less, by falling gain."""
    holding = [point for point in points if point.role in ("proposed", "holds") or _present_holds(point)]
    known = [(point, g, c) for point in holding if (g := gain(point)) is not None and (c := cost(point)) is not None]
    kept: list[Point] = []
    cheapest = float("inf")
    for point, _, its_cost in sorted(known, key=lambda one: (-one[1], one[2])):
        if its_cost < cheapest:
            kept.append(point)
            cheapest = its_cost
    return kept


def _present_holds(point: Point) -> bool:
    return point.is_present and point.finalist is not None and point.finalist.holds


def _median(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None
