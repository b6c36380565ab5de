"""Status, scalars and console become readings by epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tao2serve.registry.evidence import Schedule, disagreement, has_precision, of_console, of_scalars, of_status
from tao2serve.tao.console import read_console
from tao2serve.tao.status import read_status
from tao2serve.values import MetricReading

TAG = "mean average precision (mAP) (in %)"
EVERY_TEN = Schedule(epochs=40, period=10, first=10, completed=True)


def curves(points: dict[int, float], tag: str = TAG, **classes: dict[int, float]) -> dict[str, Any]:
    """The answer of events.scalar_metrics_iter_histogram."""
    named = {tag: points, **{f"{name}_AP (in %)": values for name, values in classes.items()}}
    return {name: {name: {"name": name, "x": [*values], "y": [*values.values()]}} for name, values in named.items()}


def means(evidence: Any) -> dict[int, float | None]:
    return {epoch: reading.mean_average_precision for epoch, reading in evidence.by_epoch.items()}


def test_taos_scalars_are_ratios_by_step() -> None:
    """TAO's tag says percent and its value is a ratio; its step is the epochs finished times the steps of one."""
    steps = {250: 0.5, 500: 0.6, 750: 0.65, 1000: 0.7}
    evidence = of_scalars(curves(steps, car={250: 0.9, 1000: 0.8}), EVERY_TEN)
    assert means(evidence) == {10: 0.5, 20: 0.6, 30: 0.65, 40: 0.7}
    assert evidence.last_epoch == 40
    assert evidence.by_epoch[40].average_precision == (("car", 0.8),)
    assert evidence.by_epoch[20].average_precision == ()


def test_a_stopped_or_resumed_run_still_tells_its_epochs() -> None:
    """Evaluations that were cut off at either end fall on the schedule with one number of steps only."""
    stopped = Schedule(epochs=40, period=10, first=10)
    assert means(of_scalars(curves({250: 0.5, 500: 0.6}), stopped)) == {10: 0.5, 20: 0.6}
    resumed = Schedule(epochs=120, period=10, first=10, completed=True)
    late = {step: step / 1e5 for step in range(1250, 3001, 250)}
    assert means(of_scalars(curves(late), resumed)) == {epoch: epoch * 25 / 1e5 for epoch in range(50, 121, 10)}


def test_steps_that_could_be_several_epochs_are_none() -> None:
    """One evaluation of a stopped run can be of any epoch; nothing is guessed, and the note says so."""
    evidence = of_scalars(curves({4000: 0.5}), Schedule(epochs=16, period=2, first=2))
    assert evidence.by_epoch == {}
    assert "how many steps" in evidence.note
    assert of_scalars(curves({4000: 0.5}), Schedule()).by_epoch == {}
    assert means(of_scalars(curves({4000: 0.5}), Schedule(epochs=16, period=2, first=2, completed=True))) == {16: 0.5}
    assert means(of_scalars(curves({500: 0.4, 4000: 0.5}), Schedule(), known=[2, 16])) == {2: 0.4, 16: 0.5}


def test_a_curve_of_ones_own_counts_epochs() -> None:
    """What somebody reports as mAP is by epoch if no point lies beyond the last one; above 1 it is percent."""
    schedule = Schedule(epochs=40, period=10, first=10)
    assert means(of_scalars(curves({5: 50.0, 40: 70.0}, tag="mAP"), schedule)) == {5: 0.5, 40: 0.7}


def test_numbers_that_are_none() -> None:
    """NaN, infinity, text and broken curves are left out; a ratio below 0 is no reading."""
    odd = curves({250: float("nan"), 500: float("inf"), 750: -0.5, 1000: 0.7})
    assert means(of_scalars(odd, EVERY_TEN)) == {30: None, 40: 0.7}
    assert of_scalars({TAG: {TAG: {"x": "no", "y": None}}, "b": 3, "c": {"d": None}}, EVERY_TEN).by_epoch == {}


def test_of_a_repeated_epoch_the_later_counts(tmp_path: Path) -> None:
    """A run that was begun again repeats epochs, in any order; the file that is there is of the later ones."""
    lines = [
        {"status": "STARTED"},
        *({"epoch": e, "message": "Evaluation metrics generated.", "kpi": {"mean average precision": p}} for e, p in
          [(4, 60.0), (2, 50.0), (6, 10.0)]),
        {"status": "STARTED"},
        {"epoch": 2, "message": "Evaluation metrics generated.", "kpi": {"mean average precision": 55.5}},
    ]  # fmt: skip
    path = tmp_path / "status.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    evidence = of_status(read_status(path))
    assert means(evidence) == {4: 0.6, 2: 0.555, 6: 0.1}
    assert evidence.last_epoch == 2
    text = "".join(f"Epoch {e}/8\nMean average_precision (in %): {p}\n" for e, p in [(4, 60), (2, 50), (2, 55.5)])
    assert means(of_console(read_console(text))) == {4: 0.6, 2: pytest.approx(0.555)}


def test_disagreement_beyond_rounding() -> None:
    """Rounded to four decimals of a percent is the same number; more is said, with both."""

    def reading(source: str, value: float | None) -> MetricReading:
        return MetricReading(source=source, mean_average_precision=value)

    assert disagreement([reading("status.json", 0.995659), reading("scalars", 0.9956594)]) == ""
    assert disagreement([reading("status.json", None), reading("scalars", 0.5)]) == ""
    told = disagreement([reading("status.json", 0.9), reading("scalars", 0.9), reading("console", 0.5)])
    assert told == "status.json says 0.9000, console says 0.5000"


def test_a_run_is_asked_for_curves_only_if_it_has_one() -> None:
    """`last_metrics` tells whether there is a curve of precision at all; odd ones tell that there is none."""
    assert has_precision({"a": {"b": {"metric": TAG, "variant": TAG}}})
    assert not has_precision({"a": {"b": {"metric": "total_cost", "variant": "total_cost"}}})
    assert not any(map(has_precision, (None, [], {"a": None}, {"a": {"b": 1}})))
