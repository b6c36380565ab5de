"""What a tuning did not measure, or not to the end, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tao2serve.tuning.candidate import BATCHES, INSTANCES, Candidate, Grid
from tao2serve.tuning.search import CHALLENGERS, Tuning

__all__ = ["Skipped", "not_measured", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that was left out; `why` is a clause."""

    what: str
    why: str

    def to_dict(self) -> dict[str, str]:
        return {"what": self.what, "why": self.why}


def not_measured(grid: Grid, tuning: Tuning) -> tuple[Candidate, ...]:
    """Return the candidates that a local search did not come by; none if all were measured."""
    seen = {found.candidate for found in tuning.survey}
    return tuple(candidate for candidate in grid.candidates() if candidate not in seen)


def skipped(
    grid: Grid, tuning: Tuning, *, given: Iterable[str] = (), cpus: int | None, largest_batch: int | None
) -> tuple[Skipped, ...]:
    """Return what was left out of the grid, of the survey and of the finals; `given` are the knobs of --try."""
    return (*_of_grid(grid, set(given), cpus, largest_batch), *_of_survey(grid, tuning), *_of_finals(tuning))


def _of_grid(grid: Grid, given: set[str], cpus: int | None, largest_batch: int | None) -> Iterable[Skipped]:
    for count in INSTANCES:
        if "instances" not in given and count not in grid.instances:
            yield Skipped(what=f"{count} instances", why=f"no GPU serves, and there are {cpus} CPUs")
    for size in BATCHES:
        if "max_batch_size" not in given and size not in grid.max_batch_size:
            yield Skipped(what=f"batch {size}", why=f"the plan takes at most {largest_batch}")
    if 1 in grid.max_batch_size and any(grid.queue_delay_us):
        yield Skipped(what="a delay with batch 1", why="nothing waits for others there, so it has no effect")


def _of_survey(grid: Grid, tuning: Tuning) -> Iterable[Skipped]:
    if those := not_measured(grid, tuning):
        yield Skipped(
            what=f"{len(those)} of {tuning.of_grid} combinations",
            why="the search is local: it varies one knob after the other, with the others as they were best so far",
        )


def _of_finals(tuning: Tuning) -> Iterable[Skipped]:
    finals = {finalist.candidate for finalist in tuning.finals}
    for number, found in enumerate(tuning.survey, 1):
        if found.candidate in finals:
            continue
        why = f"not in the finals: {CHALLENGERS} others were better in the survey"
        if found.reasons:
            why = f"not in the finals, since it does not hold: {'; '.join(found.reasons)}"
        yield Skipped(what=f"{number}: {found.candidate}", why=why)
