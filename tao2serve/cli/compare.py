"""`tao2serve models --compare`: trained models side by side, with how fast they run here."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tao2serve.cli.options import seconds
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.comparison.compared import Comparison
    from tao2serve.comparison.run import Outcome
    from tao2serve.registry.trained import Selectors

NARROWEST: Final = 60
WIDEST: Final = 200


def compare(
    names: list[str], chosen: Selectors, *, measures: bool, measure_time: str, output: Path | None, reports: bool,
    json_output: bool,
) -> None:  # fmt: skip
    """Run the comparison and print it."""
    from tao2serve.comparison.run import CompareRequest, compare_models
    from tao2serve.config import home, load_settings

    request = CompareRequest(
        names=tuple(names),
        selectors=chosen,
        measures=measures,
        seconds=_measure_time(measure_time),
        output=output,
        reports=reports,
    )
    settings = load_settings()
    with (
        quiet(home() / "logs" / "compare.log") as terminal,
        shown_steps(terminal) as steps,
        tempfile.TemporaryDirectory(prefix="tao2serve-compare-") as folder,
    ):
        outcome = compare_models(request, settings, folder=Path(folder), steps=steps)
    if json_output:
        print_json(outcome.to_dict())
    else:
        print_text(summary(outcome, width=_width()))


def _measure_time(text: str) -> float:
    value = seconds(text, option="--measure-time")
    if not 0.1 <= value <= 600:
        raise UsageError("--measure-time", f"is {text!r}", hint="from 100ms to 10m, for each model")
    return value


def _width() -> int:
    return min(max(shutil.get_terminal_size((160, 24)).columns, NARROWEST), WIDEST)


def summary(outcome: Outcome, *, width: int) -> str:
    """Return the table, what follows from it, on what machine, and where the plot is."""
    from tao2serve.comparison.compared import sentence

    comparison = outcome.comparison
    lines = [table(comparison, width=width), ""]
    said = sentence(comparison)
    lines += [f"{said}." if said else ""] if said else []
    lines += [f"note: {note}" for note in comparison.notes]
    machine = dict(comparison.machine)
    if machine:
        where = f"{machine.get('CPU', 'a CPU unknown')}, {machine.get('CPUs usable', '?')} CPUs"
        lines.append(f"measured on {where}, {machine['Run by']}")
    if outcome.page:
        lines.append(f"plot: {outcome.page}")
    elif comparison.measured:
        lines.append("plot: add -o DIR for a page with accuracy over latency")
    if outcome.task_id:
        lines.append(f"reported to ClearML task {outcome.task_id}")
    return "\n".join(lines)


def table(comparison: Comparison, *, width: int) -> str:
    """Return the models as columns, as far as they fit; names are folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tao2serve.comparison.compared import columns_of, table_of

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("", no_wrap=True)
    for column in columns_of(comparison):
        drawn.add_column(Text(column), overflow="fold", justify="right")
    for name, values in table_of(comparison):
        drawn.add_row(name, *(Text(value) for value in values))
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
