"""The course of a training as ClearML's events: curves as TAO's hook reports them, and what TAO printed.

An event that the task has already is not sent again: ClearML would show the average of both, or a line twice. The SDK
cannot say when something was measured, so events go through the API, with the time that status.json gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.registry.calls import call
from tao2serve.registry.evidence import Evidence
from tao2serve.registry.session import clearml
from tao2serve.tao.results import Results, moment_of, read_log
from tao2serve.tao.tensorboard import read_scalars

__all__ = ["Point", "course_of", "log_pieces", "masked", "send_course", "send_log"]

MEAN: Final = "mean average precision (mAP) (in %)"  # ratios in spite of their names, as TAO's hook reports them
CLASS: Final = "{name}_AP (in %)"
MOST_POINTS: Final = 1000  # of one curve
BATCH: Final = 500
LOG_BYTES: Final = 16 << 20  # as much as `models` reads
PIECE_BYTES: Final = 16 << 10
# `-k KEY`, `--key KEY`, `KEY=…`, `enc_key='…'`; not `key: "car"`, as specs have it.
KEYS: Final = re.compile(
    r"((?:^|\s)(?:-k|--key)(?:\s+|=)|\b\w*key\s*=\s*)('[^'\n]*'|\"[^\"\n]*\"|[^\s,)]+)", re.I | re.M
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of a curve."""

    curve: str
    iteration: int
    value: float
    time: datetime | None = None


def course_of(results: Results, evidence: Sequence[Evidence]) -> tuple[Point, ...]:
    """Return all that is reported: TensorBoard's scalars where there are any, else the losses of status.json.

    The precisions are those of the most believed source, unless TensorBoard has them by step: one curve has one
    kind of step. Otherwise the iteration is the epoch.
    """
    curves = read_scalars(results.events)
    points = [
        Point(curve=name, iteration=step, value=value)
        for name, curve in sorted(curves.items())
        for step, value in _thinned(sorted(curve.items()))
    ]
    if "total_cost" not in curves:
        points += _losses(results)
    if MEAN not in curves:
        points += _precisions(results, evidence)
    unique = {(point.curve, point.iteration): point for point in points}
    return tuple(unique.values())


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return evenly spread points of a long curve, the first and the last among them."""
    if len(curve) <= MOST_POINTS:
        return curve
    return [curve[round(index * (len(curve) - 1) / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def _losses(results: Results) -> Iterator[Point]:
    for record in results.status.records if results.status else ():
        for curve, value in (("total_cost", record.loss), ("learning_rate", record.learning_rate)):
            if value is not None and record.epoch is not None:
                yield Point(curve=curve, iteration=record.epoch, value=value, time=moment_of(record))


def _precisions(results: Results, evidence: Sequence[Evidence]) -> Iterator[Point]:
    if not evidence:
        return
    costs = {}
    times: dict[int, datetime | None] = {}
    for record in results.status.evaluations if results.status else ():
        if record.epoch is not None:
            times[record.epoch] = moment_of(record)
            if record.validation_cost is not None:
                costs[record.epoch] = record.validation_cost
    for epoch, reading in sorted(evidence[0].by_epoch.items()):
        values = [(CLASS.format(name=name), value) for name, value in reading.average_precision]
        if reading.mean_average_precision is not None:
            values.append((MEAN, reading.mean_average_precision))
        if epoch in costs:
            values.append(("validation_cost", costs[epoch]))
        for curve, value in values:
            yield Point(curve=curve, iteration=epoch, value=value, time=times.get(epoch))


def send_course(task_id: str, points: Sequence[Point], *, on_news: Callable[[str], None] = lambda _: None) -> int:
    """Report the points that the task does not have yet, and return how many those were."""
    held = _held_points(task_id)
    new = [point for point in points if (point.curve, point.iteration) not in held]
    events = [
        {
            "type": "training_stats_scalar", "task": task_id, "metric": point.curve, "variant": point.curve,
            "iter": point.iteration, "value": point.value,
            **({"timestamp": int(point.time.timestamp() * 1000)} if point.time else {}),
        }
        for point in new
    ]  # fmt: skip
    _send(events, what="points of curves", on_news=on_news)
    return len(new)


def _held_points(task_id: str) -> set[tuple[str, int]]:
    data = call("events", "scalar_metrics_iter_histogram", task=task_id, samples=10_000)
    return {
        (metric, int(x))
        for metric, variants in data.items()
        if isinstance(variants, dict)
        for curve in variants.values()
        if isinstance(curve, dict)
        for x in curve.get("x") or ()
        if isinstance(x, int | float)
    }


def log_pieces(results: Results) -> tuple[str, ...]:
    """Return the console log in pieces of whole lines, keys masked: its end, if it is very long."""
    if results.log is None:
        return ()
    text = masked(read_log(results.log)[-LOG_BYTES:])
    pieces: list[str] = []
    lines: list[str] = []
    size = 0
    for line in text.splitlines():
        if size + len(line) > PIECE_BYTES and lines:
            pieces.append("\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    return (*pieces, *(["\n".join(lines)] if lines else []))


def masked(text: str) -> str:
    """Return what was printed without the key of the training, where a command line shows it."""
    return KEYS.sub(lambda found: f"{found.group(1)}***", text)


def send_log(
    task_id: str, pieces: Sequence[str], *, begun: datetime | None, on_news: Callable[[str], None] = lambda _: None
) -> int:
    """Report the pieces of a log that the task does not have yet, in their order; return how many those were."""
    if not pieces:
        return 0
    held = _held_messages(task_id)
    first = int((begun or datetime.now()).timestamp() * 1000)
    events = [
        # Their times keep them in order: two of one moment might change places.
        {
            "type": "log",
            "task": task_id,
            "level": "info",
            "worker": "adopted",
            "msg": piece,
            "timestamp": first + number,
        }
        for number, piece in enumerate(pieces)
        if piece not in held
    ]
    _send(events, what="pieces of the console log", on_news=on_news)
    return len(events)


def _held_messages(task_id: str) -> set[str]:
    found: set[str] = set()
    before: float | None = None
    while True:
        since = {"from_timestamp": before} if before is not None else {}
        data = call(
            "events", "get_task_log", task=task_id, batch_size=1000, navigate_earlier=True, order="desc", **since
        )
        batch = [event for event in data.get("events") or () if isinstance(event, dict)]
        found |= {str(event.get("msg")) for event in batch}
        stamps = [event["timestamp"] for event in batch if isinstance(event.get("timestamp"), int | float)]
        if len(batch) < 1000 or not stamps or min(stamps) == before:
            return found
        before = min(stamps)


def _send(events: Sequence[Mapping[str, Any]], *, what: str, on_news: Callable[[str], None]) -> None:
    """Send events in batches; raises ServiceError if ClearML does not take all of them."""
    session = clearml().Task._get_default_session()
    for start in range(0, len(events), BATCH):
        batch = list(events[start : start + BATCH])
        on_news(f"{min(start + BATCH, len(events)):,} of {len(events):,} {what}")
        answers = session.send_request_batch("events", "add_batch", json=batch)
        answer = answers[0] if isinstance(answers, list) else answers
        try:
            data = answer.json().get("data") or {}
        except (ValueError, AttributeError):
            data = {}
        if data.get("added") != len(batch):
            raise ServiceError(
                "ClearML server, events.add_batch", f"did not take all {what}",
                evidence=f"{data.get('added', 0)} of {len(batch)}: {data.get('errors_info') or 'no reason given'}",
                hint="run it again: what is there is not sent twice",
            )  # fmt: skip
