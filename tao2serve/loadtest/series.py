"""Several runs of one test at different loads: a sweep, or the search for the highest rate that holds an SLO."""

from __future__ import annotations

from dataclasses import dataclass

from tao2serve.loadtest.gates import Gate, Verdict
from tao2serve.loadtest.result import LoadResult

__all__ = ["HighestRate", "LoadSeries", "SeriesRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRun:
    """One run, and whether it reached the gates."""

    result: LoadResult
    verdicts: tuple[Verdict, ...]
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HighestRate:
    """What a search found: `holds_rps` was measured to hold all gates, `fails_rps` to miss one.

    None where no rate did; between the two nothing was tried. `confidence` says in a sentence what that rests on.
    """

    gates: tuple[Gate, ...]
    holds_rps: float | None
    fails_rps: float | None
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSeries:
    """Runs in the order in which they were made."""

    runs: tuple[SeriesRun, ...]
    highest: HighestRate | None = None  # of a search
