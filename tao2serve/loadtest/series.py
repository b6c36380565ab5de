"""Several runs of one test at different loads: a sweep, or the search for the highest rate that holds an SLO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tao2serve.errors import UsageError
from tao2serve.loadtest.gates import Gate, Verdict, evaluate, passed
from tao2serve.loadtest.result import LoadResult

__all__ = ["HighestRate", "LoadSeries", "SeriesRun", "judged"]


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
    # `holds_rps` held in two runs or more, in most of its runs, and with enough answers for the gates' percentiles
    confirmed: bool = False

    @property
    def finding(self) -> str:
        """What was found, as the begin of a sentence."""
        gates = ", ".join(gate.text for gate in self.gates)
        if self.holds_rps is not None:
            return f"{self.holds_rps:g} requests/s hold {gates}{'' if self.confirmed else ', not confirmed'}"
        if self.fails_rps is not None:
            return f"no rate that was tried holds {gates}"
        return f"the highest rate that holds {gates} was not found"

    def to_dict(self) -> dict[str, object]:
        return {
            "gates": [gate.text for gate in self.gates],
            "holds_rps": self.holds_rps,
            "fails_rps": self.fails_rps,
            "confirmed": self.confirmed,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSeries:
    """Runs in the order in which they were made, at least one.

    A search passes if some rate holds the gates, confirmed. A sweep passes if every load of it does: who names a load
    means it, so one that was cut short does not.
    """

    runs: tuple[SeriesRun, ...]
    highest: HighestRate | None = None  # of a search
    cut_short: bool = False  # it was interrupted, or an error ended it: loads that were to be tried are missing

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("load test", "has no load", hint="--sweep 1,2,4")

    @property
    def passed(self) -> bool:
        if self.highest is not None:
            return self.highest.confirmed
        return not self.cut_short and all(run.passed for run in self.runs)

    @property
    def decisive(self) -> int:
        """The index of the run that stands for the series.

        Of a search the last one that held the highest rate, or if none holds, the last at the lowest rate. Of a
        sweep the first that does not pass, else the one with the highest throughput.
        """
        if self.highest is not None:
            return _decisive_of_search(self.runs, self.highest.holds_rps)
        for index, run in enumerate(self.runs):
            if not run.passed:
                return index
        return max(range(len(self.runs)), key=lambda index: self.runs[index].result.throughput_rps)


def _decisive_of_search(runs: Sequence[SeriesRun], holds_rps: float | None) -> int:
    rates = [_rate(run) for run in runs]
    if holds_rps is None:
        return max(index for index, rate in enumerate(rates) if rate == min(rates))
    return max(index for index, rate in enumerate(rates) if rate == holds_rps and runs[index].passed)


def _rate(run: SeriesRun) -> float:
    return float(getattr(run.result.plan.shape, "rate_rps", 0.0))


def judged(result: LoadResult, gates: Sequence[Gate]) -> SeriesRun:
    """Hold the gates against a result."""
    verdicts = evaluate(result, gates)
    return SeriesRun(result=result, verdicts=verdicts, passed=passed(result, verdicts))
