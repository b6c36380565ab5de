"""The console log of a finished DetectNet_v2 training, told again from what the run left.

The wording is that of TAO 5.0: `task_progress_monitor_hook.py` and `validation_hook.py` of tao_tensorflow1_backend, and
logs that users have published. What the run did not measure is left out: the progress bars, the samples per second and
the line "Median Inference Time" behind each table. Losses and learning rates are those of the nearest report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

__all__ = ["Curve", "Evaluation", "History", "console_log", "read_history"]

Curve = Sequence[Sequence[float]]

_PROGRESS: Final = "nvidia_tao_tf1.cv.detectnet_v2.tfhooks.task_progress_monitor_hook 149"
_ROOT: Final = "root 2102"
_HEADS: Final = ("class name", "average precision (in %)")
_ENDING: Final = ("Training loop completed.", "Saving trained model.", "Model saved.", "Training op complete.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What TAO measured after an epoch; precisions in percent, as it prints them."""

    epoch: int
    time: datetime
    cost: float
    mean_average_precision: float
    average_precisions: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A training: when it began, how long it was to be, its evaluations, and whether it came to its end."""

    begun: datetime
    epochs: int
    evaluations: tuple[Evaluation, ...]
    ended: bool

    def until(self, epoch: int, *, earlier: timedelta = timedelta()) -> History:
        """Return the same training as one that was aborted after an epoch, so much earlier."""
        kept = tuple(replace(one, time=one.time - earlier) for one in self.evaluations if one.epoch <= epoch)
        return replace(self, begun=self.begun - earlier, evaluations=kept, ended=False)

    @property
    def last_epoch(self) -> int:
        """The last epoch that was evaluated."""
        return self.evaluations[-1].epoch


def read_history(records: Sequence[Mapping[str, Any]]) -> History:
    """Return the training that the records of a status.json tell of."""
    evaluated = [record for record in records if "kpi" in record]
    return History(
        begun=_time(records[0]),
        epochs=int(evaluated[-1]["max_epoch"]),
        evaluations=tuple(_evaluation(record) for record in evaluated),
        ended=records[-1]["status"] == "SUCCESS",
    )


def _evaluation(record: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        epoch=int(record["epoch"]),
        time=_time(record),
        cost=float(record["kpi"]["validation cost"]),
        mean_average_precision=float(record["kpi"]["mean average precision"]),
        average_precisions={name: float(value) for name, value in record["categorical"]["average_precision"].items()},
    )


def _time(record: Mapping[str, Any]) -> datetime:
    return datetime.strptime(f"{record['date']} {record['time']}", "%m/%d/%Y %H:%M:%S")


def console_log(history: History, *, losses: Curve, rates: Curve, steps_per_epoch: int) -> Iterator[str]:
    """Yield the log piece by piece: the first step of each epoch, each evaluation, and the end if it was reached.

    `losses` and `rates` are (iteration, value) in rising order.
    """
    evaluations = {one.epoch: one for one in history.evaluations}
    before = timedelta()
    for epoch in range(history.last_epoch + 1):
        if epoch in evaluations:
            yield _table(evaluations[epoch], history.epochs)
        if epoch < history.last_epoch:
            step, begun = epoch * steps_per_epoch, _moment(history, epoch)
            taken = f"Time taken: {before} ETA: {(history.epochs - epoch) * before}"
            loss, rate = _at(losses, step), _at(rates, step)
            progress = f"Epoch {epoch}/{history.epochs}: loss: {loss:0.5f} learning rate: {rate} {taken}"
            yield _line(begun, _PROGRESS, progress)
            before = _moment(history, epoch + 1) - begun
    if history.ended:
        done = history.evaluations[-1].time
        yield "\n".join(_line(done, _ROOT, text) for text in (*_ENDING, "DetectNet_v2 training job complete."))


def _moment(history: History, epoch: int) -> datetime:
    """Return when an epoch was over, between the evaluations whose times are known."""
    known = [(0, history.begun), *((one.epoch, one.time) for one in history.evaluations)]
    after = next(index for index, (reached, _) in enumerate(known) if reached >= epoch)
    if known[after][0] == epoch:
        return known[after][1]
    (low, begun), (high, ended) = known[after - 1], known[after]
    return begun + timedelta(seconds=round((ended - begun).total_seconds() * (epoch - low) / (high - low)))


def _at(curve: Curve, step: int) -> float:
    return min(curve, key=lambda point: abs(point[0] - step))[1]


def _line(moment: datetime, place: str, text: str) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S},000 [TAO Toolkit] [INFO] {place}: {text}"


def _table(one: Evaluation, epochs: int) -> str:
    rows = [(name, str(value)) for name, value in sorted(one.average_precisions.items())]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    shown = ["| " + " | ".join(map(str.center, row, widths)) + " |" for row in (_HEADS, *rows)]
    head = (f"Epoch {one.epoch}/{epochs}", "=" * 25, "", f"Validation cost: {one.cost:f}")
    score = f"Mean average_precision (in %): {one.mean_average_precision:0.4f}"
    table = (rule, shown[0], rule, *shown[1:], rule)
    return "\n".join((*head, score, "", *table, "", _line(one.time, _ROOT, "Evaluation metrics generated.")))
