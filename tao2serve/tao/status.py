"""TAO's status.json: one JSON object a line, written while a run goes on.

TAO writes precision in percent (0–100, `evaluation` in its tf1 backend multiplies by 100); here it is a
ratio in [0, 1] everywhere. At the first step of an epoch TAO writes the epochs that were finished by then
(task_progress_monitor_hook.py counts from 0), and its line on an evaluation, at the end of that epoch, names none:
what is evaluated is one epoch more.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tao2serve.errors import InputError

__all__ = ["StatusRecord", "TrainingStatus", "read_status"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 256 << 20
_EVALUATED = "Evaluation metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """One line; None and empty where it does not say."""

    line: int  # counted from 1
    date: str  # as TAO writes it, m/d/yyyy
    time: str
    status: str  # STARTED, RUNNING, SUCCESS, FAILURE …
    verbosity: str
    message: str
    is_evaluation: bool  # whether its precision is new: TAO repeats the last one on every later line
    epoch: int | None  # finished by then: its own, or what the line last named before it implies
    max_epoch: int | None
    mean_average_precision: float | None  # ratio
    average_precision: Mapping[str, float]  # ratio by target class
    validation_cost: float | None
    size_mb: float | None
    param_count_millions: float | None
    loss: float | None
    learning_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStatus:
    """A whole status.json, in file order."""

    path: Path
    records: tuple[StatusRecord, ...]
    skipped_lines: int  # not JSON objects; the last line of a live run is often cut off

    @property
    def evaluations(self) -> tuple[StatusRecord, ...]:
        """The records that say how an epoch did, each evaluation once."""
        return tuple(record for record in self.records if record.is_evaluation)

    @property
    def best(self) -> StatusRecord | None:
        """The evaluation with the highest mean average precision, the later one of equals."""
        return max(
            self.evaluations,
            key=lambda record: (record.mean_average_precision or 0.0, record.line),
            default=None,
        )

    @property
    def latest(self) -> StatusRecord | None:
        return self.evaluations[-1] if self.evaluations else None

    @property
    def param_count_millions(self) -> float | None:
        counts = [x.param_count_millions for x in self.records if x.param_count_millions is not None]
        return counts[-1] if counts else None

    @property
    def succeeded(self) -> bool:
        return bool(self.records) and self.records[-1].status == "SUCCESS"


def read_status(path: Path) -> TrainingStatus:
    """Read a status.json. Raises InputError for a file that is missing, too large or has no record in it."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(str(path), "is too large for a status.json")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    records: list[StatusRecord] = []
    skipped, epoch = 0, None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _parsed(line)
        if parsed is None:
            skipped += 1
            continue
        if parsed.get("status") == "STARTED":
            epoch = None  # TAO appends a resumed run to the same file
        named = _whole(parsed.get("epoch", parsed.get("cur_epoch")))
        epoch = epoch if named is None else named
        finishes = named is None and epoch is not None and _text(parsed.get("message")).startswith(_EVALUATED)
        records.append(_record(number, parsed, epoch, finishes=finishes, previous=records[-1] if records else None))
    if not records:
        raise InputError(
            str(path),
            "has no status in it",
            evidence=f"{skipped} lines, none a JSON object",
            hint="TAO writes status.json into the results folder of a run",
        )
    if skipped:
        logger.warning("%s: skipped %d lines that are not JSON objects", path, skipped)
    return TrainingStatus(path=path, records=tuple(records), skipped_lines=skipped)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _record(
    number: int, parsed: Mapping[str, Any], epoch: int | None, *, finishes: bool, previous: StatusRecord | None
) -> StatusRecord:
    kpi, graphical = _mapping(parsed.get("kpi")), _mapping(parsed.get("graphical"))
    by_class = _mapping(_mapping(parsed.get("categorical")).get("average_precision"))
    precisions = {name: _ratio(value) for name, value in by_class.items()}
    average_precision = MappingProxyType({k: v for k, v in precisions.items() if v is not None})
    mean, cost = _ratio(kpi.get("mean average precision")), _number(kpi.get("validation cost"))
    is_new = previous is None or (mean, cost) != (previous.mean_average_precision, previous.validation_cost)
    message = _text(parsed.get("message"))
    return StatusRecord(
        line=number,
        date=_text(parsed.get("date")),
        time=_text(parsed.get("time")),
        status=_text(parsed.get("status")),
        verbosity=_text(parsed.get("verbosity")),
        message=message,
        is_evaluation=mean is not None and (is_new or message.startswith(_EVALUATED)),
        epoch=epoch + 1 if finishes and epoch is not None else epoch,
        max_epoch=_whole(parsed.get("max_epoch")),
        mean_average_precision=mean,
        average_precision=average_precision,
        validation_cost=cost,
        size_mb=_number(kpi.get("size")),
        param_count_millions=_number(kpi.get("param_count")),
        loss=_number(graphical.get("loss")),
        learning_rate=_number(graphical.get("learning_rate")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None else None


def _ratio(percent: object) -> float | None:
    number = _number(percent)
    return None if number is None or not 0 <= number <= 100 else number / 100
