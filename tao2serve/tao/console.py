"""What TAO prints while it trains: the evaluations in a console log.

The lines are those of tao_tensorflow1_backend 5.0: validation_hook.py prints `Epoch N/M` alone on its line, N being
the epochs finished, and evaluation.py the mean in percent with four decimals and a table of classes (`pretty`; older
TAO: `simple`). task_progress_monitor_hook.py logs `Epoch N/M: loss: …` at the first step of an epoch, N counted from 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = ["ConsoleEvaluation", "read_console"]

ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# A progress bar may stand before it on the line.
HEAD: Final = re.compile(r"(?<!\w)Epoch (\d{1,7})/(\d{1,7})\s*$")
STARTED: Final = re.compile(r"(?<!\w)Epoch (\d{1,7})/(\d{1,7}): loss")
MEAN: Final = re.compile(r"Mean average_precision \(in %\):\s*(\S{1,40})")
PRETTY_ROW: Final = re.compile(r"^\|\s*(.+?)\s*\|\s*(\S+)\s*\|$")
SIMPLE_ROW: Final = re.compile(r"^(\S.{0,200}?)\s{2,}(\S+)$")
# Between the head and the mean TAO prints four lines; loggers may put a few of their own there.
HEAD_REACH: Final = 20
LINE_LENGTH: Final = 2000
TABLE_ROWS: Final = 1000
ROW_LENGTH: Final = 300  # a longer line is no row, and would be slow to match


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleEvaluation:
    """One evaluation as it was printed; precisions are ratios, None where no number was printed."""

    epoch: int | None  # finished epochs
    epochs: int | None  # of the whole run
    mean_average_precision: float | None
    average_precision: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def read_console(text: str) -> tuple[ConsoleEvaluation, ...]:
    """Return the evaluations in a console log, in its order; whatever else it holds is passed over."""
    found: list[ConsoleEvaluation] = []
    head: tuple[int, int, int] | None = None  # epoch, epochs, line
    started: tuple[int, int] | None = None
    lines = [ANSI.sub("", line[-LINE_LENGTH:]).strip() for line in text.splitlines()]
    for number, line in enumerate(lines):
        if match := MEAN.search(line):
            near = head is not None and number - head[2] <= HEAD_REACH
            # With early stopping TAO prints no head.
            begun = (started[0] + 1, started[1]) if started else (None, None)
            epoch, epochs = head[:2] if near and head is not None else begun
            head = None
            found.append(
                ConsoleEvaluation(
                    epoch=epoch,
                    epochs=epochs,
                    mean_average_precision=_ratio(match.group(1)),
                    average_precision=MappingProxyType(dict(_table(lines[number + 1 : number + TABLE_ROWS]))),
                )
            )
        elif match := HEAD.search(line):
            head = int(match.group(1)), int(match.group(2)), number
        elif match := STARTED.search(line):
            started = int(match.group(1)), int(match.group(2))
    return tuple(found)


def _table(lines: Iterable[str]) -> Iterable[tuple[str, float]]:
    """Yield the rows of the table that follows, if one does, before anything else TAO prints."""
    row = None
    for line in lines:
        if MEAN.search(line) or HEAD.search(line) or "Median Inference Time" in line:
            return
        if row is None:
            if line.startswith("| class name"):
                row = PRETTY_ROW
            elif line.startswith("class name "):
                row = SIMPLE_ROW
            continue
        if not line.strip("+-= "):  # a border, or the blank line at the end
            if not line:
                return
            continue
        match = row.match(line) if len(line) <= ROW_LENGTH else None
        value = _ratio(match.group(2)) if match else None
        if match is None:
            return
        if value is not None:
            yield match.group(1), value


def _ratio(percent: str) -> float | None:
    try:
        number = float(percent)
    except ValueError:
        return None
    return number / 100 if math.isfinite(number) and 0 <= number <= 100 else None
