"""Which candidates are measured, and what is proposed: a survey of one block each, then finals in turns.

The survey's own numbers decide only who comes to the finals: the best of many noisy numbers is mostly the luckiest, so
the finals measure anew, in turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tao2serve.tuning.candidate import KNOBS, Candidate, Grid
from tao2serve.tuning.measurement import Measurement

__all__ = ["BLOCKS", "CHALLENGERS", "Finalist", "Measure", "Objective", "Tuning", "tune"]

Objective: TypeAlias = Literal["throughput", "p99"]
Measure: TypeAlias = Callable[[Candidate, int], Measurement]
BLOCKS: Final = 3
_WHOLE: Final = 8  # candidates that are few enough to measure all of them
CHALLENGERS: Final = 2  # beside the present settings in the finals
_ROUNDS: Final = 2
_FEWEST: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A candidate of the finals, by its blocks there."""

    candidate: Candidate
    blocks: tuple[Measurement, ...]
    objective: Objective

    @property
    def judged(self) -> tuple[Measurement, ...]:
        """The blocks that say something of the candidate, and not of a load generator that was the bottleneck.

        What it does not hold then is its own all the same: memory, for one.
        """
        return tuple(block for block in self.blocks if block.reasons or not block.saturated)

    @property
    def is_judged(self) -> bool:
        """Whether there are such blocks enough to tell noise: two."""
        return len(self.judged) >= _FEWEST

    @property
    def holds(self) -> bool:
        """Whether every block that is judged held; one that is broken now and then is no proposal."""
        return self.is_judged and all(block.holds for block in self.judged)

    @property
    def values(self) -> tuple[float, ...]:
        """The blocks' numbers, as more is better; of a block without an answer the worst."""
        return tuple(_value(block, self.objective) for block in self.judged or self.blocks)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        return max(self.values) - min(self.values)

    def beats(self, other: Finalist) -> bool:
        """Whether it is better by more than the blocks of either differ among themselves."""
        return self.median - other.median > max(self.spread, other.spread)

    def to_dict(self) -> dict[str, Any]:
        blocks = self.judged or self.blocks
        return {
            "candidate": self.candidate.settings(),
            "holds": self.holds,
            "reasons": list(dict.fromkeys(reason for block in self.blocks for reason in block.why_not)),
            "throughput_rps": round(statistics.median(block.throughput_rps for block in blocks), 3),
            "p50_ms": _median([block.p50_ms for block in blocks]),
            "p99_ms": _median([block.p99_ms for block in blocks]),
            "memory_bytes": max((block.memory_bytes or 0 for block in blocks), default=0) or None,
            "judged_blocks": len(self.judged),
            "blocks": [block.to_dict() for block in self.blocks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a tuning found; `proposed` is None if no candidate of the finals holds."""

    present: Candidate
    objective: Objective
    survey: tuple[Measurement, ...]  # in the order in which they were made
    finals: tuple[Finalist, ...]  # the present settings first
    proposed: Candidate | None
    reason: str  # a sentence
    of_grid: int  # how many candidates there are

    @property
    def is_whole(self) -> bool:
        """Whether every candidate was measured, and not only those on the way of a local search."""
        return len(self.survey) >= self.of_grid

    @property
    def changes(self) -> bool:
        return self.proposed is not None and self.proposed != self.present

    def to_dict(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "present": self.present.settings(),
            "proposed": self.proposed.settings() if self.proposed else None,
            "changes": self.changes,
            "reason": self.reason,
            "candidates": self.of_grid,
            "measured": len(self.survey),
            "search": "all candidates" if self.is_whole else "local, from the present settings",
            "survey": [found.to_dict() for found in self.survey],
            "finals": [finalist.to_dict() for finalist in self.finals],
        }


def tune(grid: Grid, present: Candidate, measure: Measure, *, objective: Objective, blocks: int = BLOCKS) -> Tuning:
    """Measure candidates and propose the best of those that hold, if it is better than the present settings.

    Up to eight candidates are all measured. Of more, one knob after the other is varied from the present settings, with
    the others as they were best so far: a local search, which may miss what only two changes together bring. What
    is within the noise of the best counts as equal: then the present settings stay, else the simplest is proposed.
    Raises what `measure` raises.
    """
    present = present.plain
    every = tuple(dict.fromkeys((present, *grid.candidates())))
    found = _all(every, measure) if len(every) <= _WHOLE else _descent(grid, present, measure, objective)
    finals = _finals(found, present, measure, objective=objective, blocks=blocks)
    proposed, reason = _choice(finals)
    return Tuning(
        present=present, objective=objective, survey=tuple(found.values()), finals=finals, proposed=proposed,
        reason=reason, of_grid=len(every),
    )  # fmt: skip


def _all(every: Sequence[Candidate], measure: Measure) -> dict[Candidate, Measurement]:
    return {candidate: measure(candidate, 0) for candidate in every}


def _descent(grid: Grid, present: Candidate, measure: Measure, objective: Objective) -> dict[Candidate, Measurement]:
    found = {present: measure(present, 0)}
    best = present
    for _ in range(_ROUNDS):
        before = best
        for knob in KNOBS:
            for candidate in grid.beside(best, knob):
                if candidate not in found:
                    found[candidate] = measure(candidate, 0)
            best = _ranked([*grid.beside(best, knob), best], found, objective)[0]
        if best == before:
            break
    return found


def _ranked(
    candidates: Sequence[Candidate], found: dict[Candidate, Measurement], objective: Objective
) -> list[Candidate]:
    """The best first: those that nothing speaks against before the others, then by the objective.

    That the load generator was the bottleneck speaks against no candidate: the finals may tell.
    """

    def rank(candidate: Candidate) -> tuple[bool, float]:
        return not found[candidate].reasons, _value(found[candidate], objective)

    return sorted(candidates, key=rank, reverse=True)


def _finals(
    found: dict[Candidate, Measurement], present: Candidate, measure: Measure, *, objective: Objective, blocks: int
) -> tuple[Finalist, ...]:
    challengers = [
        candidate
        for candidate in _ranked(list(found), found, objective)
        if candidate != present and not found[candidate].reasons
    ]
    those = [present, *challengers[:CHALLENGERS]]
    measured: dict[Candidate, list[Measurement]] = {candidate: [] for candidate in those}
    for block in range(1, blocks + 1):
        for candidate in those if block % 2 else reversed(those):
            measured[candidate].append(measure(candidate, block))
    return tuple(
        Finalist(candidate=candidate, blocks=tuple(measured[candidate]), objective=objective) for candidate in those
    )


def _choice(finals: Sequence[Finalist]) -> tuple[Candidate | None, str]:
    present, holding = finals[0], [finalist for finalist in finals if finalist.holds]
    if not present.is_judged:
        return None, (
            "Nothing is proposed, since the load generator was the bottleneck when the present settings were measured: "
            "take fewer --users or a lower --rate, or more --processes."
        )
    if not holding:
        blocks = [block for finalist in finals for block in finalist.blocks]
        reasons = list(dict.fromkeys(reason for block in blocks for reason in block.reasons))[:3]
        if saturated := sum(bool(block.saturated) for block in blocks):
            reasons.append(f"in {saturated} of {len(blocks)} blocks the load generator was the bottleneck")
        return None, f"No settings held in the finals: {'; '.join(reasons)}."
    best = max(holding, key=lambda finalist: finalist.median)
    near = [finalist for finalist in holding if not best.beats(finalist)]
    if present in near:
        if best is present:
            return present.candidate, "The present settings are the best of those that were judged and hold."
        return present.candidate, (
            f"The present settings stay: {best.candidate} gave {_said(best)} instead of {_said(present)}, "
            "which is within what the blocks differ among themselves."
        )
    # Near the best is not enough: it has to be better than what is there, too.
    near = [finalist for finalist in near if not present.holds or finalist.beats(present)]
    chosen = min(near, key=lambda finalist: finalist.candidate.simplicity)
    before = _said(present) if present.holds else f"{_said(present)}, which does not hold"
    return chosen.candidate, f"{chosen.candidate} gave {_said(chosen)}, the present settings {before}."


def _said(finalist: Finalist) -> str:
    low, high = min(finalist.values), max(finalist.values)
    if finalist.objective == "throughput":
        return f"{finalist.median:.1f} answers/s ({low:.1f} to {high:.1f})"
    return f"a p99 of {-finalist.median:.1f} ms ({-high:.1f} to {-low:.1f})"


def _value(found: Measurement, objective: Objective) -> float:
    if objective == "throughput":
        return found.throughput_rps
    return -found.p99_ms if found.p99_ms is not None else -1e9


def _median(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return round(statistics.median(known), 3) if known else None
