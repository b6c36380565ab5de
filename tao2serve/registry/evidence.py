"""What a run's status.json, scalars and console say of each epoch, and which of them is believed.

status.json comes first: TAO's own record, by epoch, rounded to 1e-6. A scalar is not rounded, but ClearML keeps it by
step, averages what was reported twice for one step (a run that was continued), and its epoch has to be worked out.
The console is rounded like status.json, and is the only one that TAO's hook leaves without further ado.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tao2serve.tao.console import ConsoleEvaluation
from tao2serve.tao.status import TrainingStatus
from tao2serve.values import MetricReading

__all__ = [
    "CONSOLE", "SCALARS", "STATUS", "Evidence", "Schedule", "disagreement", "has_precision", "of_console", "of_scalars",
    "of_status",
]  # fmt: skip

STATUS: Final = "status.json"
SCALARS: Final = "scalars"
CONSOLE: Final = "console"
# Two sources rounded to 1e-6 are at most that far apart; float32 adds 1e-7.
AGREEMENT: Final = 2e-6

# TAO's tag is "mean average precision (mAP) (in %)", and in spite of it the value is a ratio (validation_hook.py).
TAO_MEAN: Final = "mean average precision map in"
MEANS: Final = (TAO_MEAN, "mean average precision", "mean average precision map", "map", "val map", "validation map")
CLASS_TAG: Final = re.compile(r"^(?P<name>.+)_AP \(in %\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One source's readings by epoch; `last_epoch` is the one it evaluated last, not the largest."""

    source: str
    by_epoch: Mapping[int, MetricReading]
    last_epoch: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a run evaluates, as its experiment spec or its console says; 0 where nothing does."""

    epochs: int = 0
    period: int = 0
    first: int = 0
    completed: bool = False

    def evaluates(self, epoch: int) -> bool:
        """Whether TAO evaluates when this many epochs are finished (validation_hook.py)."""
        if epoch < 1 or (self.epochs and epoch > self.epochs):
            return False
        due = epoch >= self.first and (self.period == 0 or (epoch - self.first) % self.period == 0)
        return due or epoch == self.epochs


def of_status(status: TrainingStatus) -> Evidence:
    """Read the evaluations of a status.json; where a continued run repeats an epoch, the later one counts."""
    readings, last = {}, None
    for record in status.evaluations:
        if record.epoch is not None:
            last = record.epoch
            readings[record.epoch] = _reading(STATUS, record.mean_average_precision, record.average_precision)
    return Evidence(source=STATUS, by_epoch=readings, last_epoch=last)


def of_console(evaluations: Sequence[ConsoleEvaluation], *, note: str = "") -> Evidence:
    """Read the evaluations of a console log; where a continued run repeats an epoch, the later one counts."""
    readings, last = {}, None
    for evaluation in evaluations:
        if evaluation.epoch is not None:
            last = evaluation.epoch
            readings[last] = _reading(CONSOLE, evaluation.mean_average_precision, evaluation.average_precision)
    if not readings and evaluations:
        note = "the console names no epoch with its evaluation"
    return Evidence(source=CONSOLE, by_epoch=readings, last_epoch=last, note=note)


def of_scalars(curves: Mapping[str, Any], schedule: Schedule, *, known: Sequence[int] = ()) -> Evidence:
    """Read the precision curves of a run, whose steps become epochs where that can be told without doubt.

    `curves` is the answer of events.scalar_metrics_iter_histogram; `known` are the epochs another source evaluated.
    """
    named = list(_named(curves))
    means = [(tag, points) for tag, points in named if _plain(tag) in MEANS]
    if not means:
        return Evidence(source=SCALARS, by_epoch={})
    # TAO's own curve, if there is one; else that of whoever reports one.
    tag, mean = min(means, key=lambda item: MEANS.index(_plain(item[0])))
    steps = sorted(mean)
    per_epoch = 1 if _by_epoch(tag, steps, schedule) else _steps_per_epoch(steps, schedule, known)
    if per_epoch is None:
        note = "scalars are there by step, and nothing says how many steps an epoch has"
        return Evidence(source=SCALARS, by_epoch={}, note=note)
    classes: dict[str, Mapping[int, float]] = {}
    for name, points in named:
        if match := CLASS_TAG.match(name):
            classes[match.group("name")] = points
    percent = max([*mean.values(), *(value for points in classes.values() for value in points.values())]) > 1
    unit = 100 if percent else 1
    readings = {
        step // per_epoch: _reading(
            SCALARS,
            mean[step] / unit,
            {name: points[step] / unit for name, points in classes.items() if step in points},
        )
        for step in steps
    }
    return Evidence(source=SCALARS, by_epoch=readings, last_epoch=steps[-1] // per_epoch)


def has_precision(last_metrics: Any) -> bool:
    """Whether a task's `last_metrics` names a curve of mean average precision."""
    groups = last_metrics.values() if isinstance(last_metrics, dict) else ()
    variants = [v for group in groups if isinstance(group, dict) for v in group.values() if isinstance(v, dict)]
    return any(_plain(str(v.get(key))) in MEANS for v in variants for key in ("metric", "variant"))


def disagreement(readings: Sequence[MetricReading]) -> str:
    """Say which sources differ from the first one at the same epoch; empty if none does."""
    said = [reading for reading in readings if reading.mean_average_precision is not None]
    first = said[0].mean_average_precision if said else None
    others = [
        f"{reading.source} says {reading.mean_average_precision:.4f}"
        for reading in said[1:]
        if first is not None
        and reading.mean_average_precision is not None
        and abs(reading.mean_average_precision - first) > AGREEMENT
    ]
    return f"{said[0].source} says {first:.4f}, {', '.join(others)}" if others else ""


def _reading(source: str, mean: float | None, classes: Mapping[str, float]) -> MetricReading:
    return MetricReading(
        source=source,
        mean_average_precision=_ratio(mean),
        average_precision=tuple(
            (name, ratio)
            for name, ratio in sorted((name, _ratio(value)) for name, value in classes.items())
            if ratio is not None
        ),
    )


def _ratio(value: float | None) -> float | None:
    return round(value, 9) if value is not None and math.isfinite(value) and 0 <= value <= 1 else None


def _plain(tag: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", tag.lower()))


def _named(curves: Mapping[str, Any]) -> Iterable[tuple[str, dict[int, float]]]:
    """Yield each curve by the more telling of its two names, with its finite points."""
    for title, variants in curves.items():
        for variant, curve in variants.items() if isinstance(variants, dict) else ():
            points = _points(curve)
            if points:
                telling = _plain(variant) in MEANS or CLASS_TAG.match(variant)
                yield (variant if telling else title), points


def _points(curve: Any) -> dict[int, float]:
    xs, ys = (curve.get("x"), curve.get("y")) if isinstance(curve, dict) else (None, None)
    if not isinstance(xs, list) or not isinstance(ys, list):
        return {}
    return {
        int(x): float(y)
        for x, y in zip(xs, ys, strict=False)
        if isinstance(x, int | float) and isinstance(y, int | float) and math.isfinite(x) and math.isfinite(y)
    }


def _by_epoch(tag: str, steps: Sequence[int], schedule: Schedule) -> bool:
    """Whether a curve that is not TAO's counts epochs already: none is beyond the run's last."""
    return _plain(tag) != TAO_MEAN and schedule.epochs > 0 and steps[-1] <= schedule.epochs


def _steps_per_epoch(steps: Sequence[int], schedule: Schedule, known: Sequence[int]) -> int | None:
    """Return the one number of steps with which every point falls on an evaluation of the run; None if not one."""
    ratios: list[tuple[int, int]] = []
    if len(known) == len(steps):
        ratios.append((steps[-1], max(known)))
    if schedule.epochs:
        ratios.append((steps[-1], schedule.epochs))
        due = next((epoch for epoch in range(1, schedule.epochs + 1) if schedule.evaluates(epoch)), 0)
        ratios.append((steps[0], due))
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    if schedule.period and gaps:
        ratios.append((min(gaps), schedule.period))
    fits = {
        whole // parts
        for whole, parts in ratios
        if parts and whole % parts == 0 and _fits(whole // parts, steps, schedule, known)
    }
    return fits.pop() if len(fits) == 1 else None


def _fits(per_epoch: int, steps: Sequence[int], schedule: Schedule, known: Sequence[int]) -> bool:
    if per_epoch < 1 or any(step % per_epoch for step in steps):
        return False
    epochs = [step // per_epoch for step in steps]
    if schedule.completed and schedule.epochs and epochs[-1] != schedule.epochs:
        return False  # TAO evaluates after the last epoch, whatever the period
    if known and not set(known) <= set(epochs) and not set(epochs) <= set(known):
        return False
    return all(schedule.evaluates(epoch) for epoch in epochs)
