"""Two load tests side by side: what differs between them, what became slower, and whether that may be noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import UsageError
from tao2serve.loadtest.differences import Difference, differences, unknown
from tao2serve.loadtest.earlier import Measured, measured_of, read_earlier
from tao2serve.loadtest.gates import FAILURE_LIMIT
from tao2serve.loadtest.noise import Interval, percentile_change, throughput_change
from tao2serve.loadtest.result import LoadResult

__all__ = ["TOLERANCE_RATIO", "Change", "Comparison", "compare", "compare_with"]

TOLERANCE_RATIO: Final = 0.10
# p90 and p95 are shown; what a user feels is held by p50, what an SLO is made of by p99.
_JUDGED: Final = ("p50", "p99", "throughput", "failure-ratio")
_PERCENTS: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number of both runs; a judged one that became worse by more than the tolerance is a regression.

    `interval` holds the change with 95 % confidence, None where the noise is not known: then the number alone judges.
    Where it is known, no change that noise alone may explain is a regression, however large; `is_doubtful` marks it.
    """

    metric: str  # p50 | p90 | p95 | p99 | max | throughput | failure-ratio
    unit: str
    old: float | None
    new: float | None
    interval: Interval | None
    is_regression: bool
    is_doubtful: bool = False  # worse by more than the tolerance, but the interval holds no change at all

    @property
    def change_ratio(self) -> float | None:
        """The change as a part of the old value; None if one is not known or the old one is zero."""
        return self.new / self.old - 1 if self.new is not None and self.old else None

    @property
    def noise(self) -> str:
        if self.interval is None:
            return "not known"
        return "may be noise" if self.interval[0] <= 0 <= self.interval[1] else "beyond noise"

    @property
    def judged_by(self) -> str:
        """What a judged number's verdict rests on; "" of one that is only shown."""
        if self.metric not in _JUDGED:
            return ""
        return "number alone" if self.interval is None else "number and noise"

    def to_dict(self) -> dict[str, object]:
        ratio = self.change_ratio
        return {
            "metric": self.metric,
            "unit": self.unit,
            "old": self.old,
            "new": self.new,
            "change_ratio": None if ratio is None else round(ratio, 4),
            "interval_ratio": [round(bound, 4) for bound in self.interval] if self.interval else None,
            "noise": self.noise,
            "regression": self.is_regression,
            "judged_by": self.judged_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An earlier run and this one. It passes if the two can be compared and nothing judged became worse."""

    old_started_at: str
    new_started_at: str
    tolerance_ratio: float
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]
    noise: str  # a sentence: what the intervals rest on, or why there are none
    source: str = ""  # the file of the earlier run
    unknown: tuple[str, ...] = ()  # what of the servers is not known of both runs

    @property
    def is_comparable(self) -> bool:
        return not any(difference.is_decisive for difference in self.differences)

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.is_regression)

    @property
    def passed(self) -> bool:
        return self.is_comparable and not self.regressions

    def to_dict(self) -> dict[str, object]:
        return {
            "source": self.source,
            "comparable": self.is_comparable,
            "differences": [difference.to_dict() for difference in self.differences],
            "unknown": list(self.unknown),
            "old_started_at": self.old_started_at,
            "new_started_at": self.new_started_at,
            "tolerance_ratio": self.tolerance_ratio,
            "noise": self.noise,
            "changes": [change.to_dict() for change in self.changes],
            "regressions": [change.metric for change in self.regressions],
            "passed": self.passed,
        }

    def __str__(self) -> str:
        if not self.is_comparable:
            unlike = (difference.name for difference in self.differences if difference.is_decisive)
            return f"not comparable: they differ in {', '.join(unlike)}"
        if not self.regressions:
            said = f"no regression beyond {self.tolerance_ratio:.0%}"
        else:
            said = "regression: " + ", ".join(_told(change) for change in self.regressions)
        doubtful = ", ".join(_told(change) for change in self.changes if change.is_doubtful)
        return f"{said}; worse, but may be noise: {doubtful}" if doubtful else said


def compare_with(path: Path, result: LoadResult, *, tolerance: float = TOLERANCE_RATIO) -> Comparison:
    """Compare a result with the result.json of an earlier run, and the requests.csv beside it for the noise.

    Raises InputError if that file is no such document, UsageError for a tolerance that is none.
    """
    document, measured = read_earlier(path)
    return compare(
        document, result.to_dict(), tolerance=tolerance, old_measured=measured, new_measured=measured_of(result),
        source=str(path),
    )  # fmt: skip


def compare(
    old_document: Mapping[str, Any],
    new_document: Mapping[str, Any],
    *,
    tolerance: float = TOLERANCE_RATIO,
    old_measured: Measured | None = None,
    new_measured: Measured | None = None,
    source: str = "",
) -> Comparison:
    """Compare two documents of load tests (LoadResult.to_dict, or `read_earlier`).

    p50, p99 and throughput are judged by `tolerance`, the ratio of failures by one percentage point. A regression is
    worse by more than that and, where the noise is known, by more than noise: its interval lies on the worse side of
    no change. Without an interval the number alone judges. Raises UsageError for a tolerance that is none.
    """
    if not 0 <= tolerance < 1:
        raise UsageError("tolerance", f"{tolerance:g} is not possible", hint="a part of one, such as 0.1 for 10 %")
    old, new = _values(old_document), _values(new_document)
    intervals, noise = _intervals(old_measured, new_measured)
    intervals["throughput"] = throughput_change(_rates(old_document), _rates(new_document))
    changes = tuple(_change(metric, old[metric], new[metric], intervals.get(metric), tolerance) for metric in old)
    return Comparison(
        old_started_at=str(old_document.get("started_at", "")),
        new_started_at=str(new_document.get("started_at", "")),
        tolerance_ratio=tolerance,
        differences=differences(old_document, new_document),
        changes=changes,
        noise=noise,
        source=source,
        unknown=unknown(old_document, new_document),
    )


def _change(metric: str, old: float | None, new: float | None, interval: Interval | None, tolerance: float) -> Change:
    is_worse = metric in _JUDGED and _is_worse(metric, old, new, tolerance)
    may_be_noise = interval is not None and interval[0] <= 0 <= interval[1]
    return Change(
        metric=metric, unit=_unit(metric), old=old, new=new, interval=interval,
        is_regression=is_worse and not may_be_noise, is_doubtful=is_worse and may_be_noise,
    )  # fmt: skip


def _values(document: Mapping[str, Any]) -> dict[str, float | None]:
    latency_ms = document["latency_ms"]
    values: dict[str, float | None] = {name: latency_ms[name] for name in (*_PERCENTS, "max")}
    requests, failures = document["requests"], document["failures"]
    return {
        **values,
        "throughput": document["throughput_rps"],
        "failure-ratio": failures / requests if requests else None,
    }


def _unit(metric: str) -> str:
    return {"throughput": "rps", "failure-ratio": ""}.get(metric, "ms")


def _is_worse(metric: str, old: float | None, new: float | None, tolerance: float) -> bool:
    """What was measured before and is not any more is worse; what was not measured before cannot be."""
    if old is None:
        return False
    if new is None:
        return True
    if metric == "failure-ratio":
        return new > old + FAILURE_LIMIT
    return new < old * (1 - tolerance) if metric == "throughput" else new > old * (1 + tolerance)


def _intervals(old: Measured | None, new: Measured | None) -> tuple[dict[str, Interval | None], str]:
    """Return an interval of the change for each percentile, as far as there are requests enough, and a sentence."""
    for which, measured in (("earlier", old), ("new", new)):
        if measured is None:
            return {}, f"The noise of the latencies is not known: the single requests of the {which} run are not here."
        if measured.latencies_ms is None:
            return {}, f"The noise of the latencies is not known: {measured.why_not}."
    assert old is not None and new is not None  # noqa: PT018 - for mypy
    before, after = old.latencies_ms or (), new.latencies_ms or ()
    found = {name: percentile_change(before, after, percent) for name, percent in _PERCENTS.items()}
    if not any(found.values()):
        return {}, f"The noise of the latencies is not known: {len(before)} and {len(after)} requests are too few."
    return found, (
        f"Intervals hold the change with 95 % confidence, by a bootstrap over blocks of {len(before):,} and "
        f"{len(after):,} requests in their order; they know the noise within a run, not that from one run to the next."
    )


def _rates(document: Mapping[str, Any]) -> Sequence[float]:
    """Return the throughput of each whole interval of the run time: a shorter last one would weigh too much."""
    series = document.get("series") or {}
    points, width_s = series.get("points") or (), series.get("interval_s") or 0.0
    end_s = document["run_time_s"] + 1e-9
    return [float(at["throughput_rps"]) for at in points if at["start_s"] >= 0 and at["start_s"] + width_s <= end_s]


def _told(change: Change) -> str:
    ratio = change.change_ratio
    if ratio is None or change.new is None or change.metric == "failure-ratio":
        return f"{change.metric} from {_value(change.old)} to {_value(change.new)} {change.unit}".rstrip()
    noise = change.noise if change.interval else "judged by the number alone, its noise is not known"
    return f"{change.metric} {ratio:+.1%} ({_value(change.old)} to {_value(change.new)} {change.unit}, {noise})"


def _value(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
