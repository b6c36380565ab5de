"""`tao2serve models`: the trained TAO models that ClearML tracks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote, urlsplit

import typer

from tao2serve.cli.compare import compare as side_by_side
from tao2serve.cli.options import Json, Metric, Project, Tags, Task, selectors
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.registry.trained import BestModel, Selectors
    from tao2serve.values import TrainedModel

NARROWEST: Final = 88
WIDEST: Final = 160
RUN_COLUMN: Final = 40  # TAO's name of a run: detectnet_v2_retrain_23/26/11_08:38:40
OTHER_COLUMNS: Final = 1 + 6 + 5 + 11 + 7 + 6 * 2  # of fixed width, and the gaps


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="With --compare: model or task ids, files, folders, PROJECT/TASK."),
    ] = None,
    project: Project = "",
    task: Task = "",
    tag: Tags = None,
    metric: Metric = "",
    compare: Annotated[
        bool, typer.Option("--compare", help="Put models side by side: precision, size, speed measured here.")
    ] = False,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="With --compare: run nothing here.")] = False,
    measure_time: Annotated[
        str, typer.Option("--measure-time", metavar="TIME", help="How long each model runs; default 5s.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for compare.html and compare.json.")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="With --compare: make no ClearML task of it.")] = False,
    json_output: Json = False,
) -> None:
    """List the trained TAO models in ClearML, and say which is best and why; or compare some of them.

    A model is measured at its own epoch: by the run's status.json, else its scalars, else its console log.

    Example: tao2serve models --project street-detector --metric person
    """
    chosen = selectors(project, task, tag, metric)
    if compare:
        side_by_side(
            names or [], chosen, measures=not no_measure, measure_time=measure_time or "5s", output=output,
            reports=not no_report, json_output=json_output,
        )  # fmt: skip
        return
    given = {
        "MODEL": bool(names),
        "--no-measure": no_measure,
        "--measure-time": bool(measure_time),
        "-o": output is not None,
        "--no-report": no_report,
    }
    stray = [word for word, there in given.items() if there]
    if stray:
        raise UsageError(", ".join(stray), "is for a comparison", hint="add: --compare")
    _list(chosen, metric=metric, json_output=json_output)


def _list(chosen: Selectors, *, metric: str, json_output: bool) -> None:
    from tao2serve.config import home
    from tao2serve.errors import InputError
    from tao2serve.registry.trained import MEAN, choose_best, find_trained_models

    why_none = ""
    with quiet(home() / "logs" / "models.log"):
        found = find_trained_models(chosen)
        best = None
        if found:
            try:
                best = choose_best(found, subject=str(chosen), metric=metric)
            except InputError as error:
                if chosen.metric.lower() not in MEAN:
                    raise
                why_none = error.fact  # several, and nothing to choose by
    if json_output:
        print_json(models_document(found, best))
    elif found:
        width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
        print_text(models_table(found, best, metric=chosen.metric, why_none=why_none, width=width))
    else:
        print_text(none_found(chosen))


def none_found(chosen: Selectors) -> str:
    """Return the sentence for an empty list, with all that was asked for."""
    asked = [f"is in project {chosen.project!r}"] * bool(chosen.project)
    asked += [f"comes from a task whose name fits {chosen.task!r}"] * bool(chosen.task)
    asked += [f"has tag {tag!r}" for tag in chosen.tags]
    *first, last = asked or ["is in ClearML"]
    return f"No trained TAO model {' and '.join(filter(None, (', '.join(first), last)))}."


def models_document(found: Sequence[TrainedModel], best: BestModel | None) -> dict[str, Any]:
    """Return the JSON document of `tao2serve models`."""
    return {
        "models": [_document(model, best=best is not None and model == best.model) for model in found],
        "reason": best.reason if best else "",
    }


def _document(model: TrainedModel, *, best: bool) -> dict[str, Any]:
    document = {**asdict(model), "average_precision": dict(model.average_precision), "best": best}
    for reading, written in zip(model.readings, document["readings"], strict=True):
        written["average_precision"] = dict(reading.average_precision)
    return document


def models_table(
    found: Sequence[TrainedModel], best: BestModel | None, *, metric: str, why_none: str, width: int
) -> str:
    """Return the table for people: three lines a model, and below it what a line has no room for."""
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from tao2serve.registry.trained import MEAN, score

    named = "mAP" if metric.lower() in MEAN else f"AP {metric}"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), leading=1)
    table.add_column("", width=1)
    table.add_column("model\nid\nwhere", overflow="fold", width=max(32, width - OTHER_COLUMNS - RUN_COLUMN))
    table.add_column("run\nproject\nstate", overflow="fold", width=min(RUN_COLUMN, width - OTHER_COLUMNS - 32))
    table.add_column("pruned", width=6)
    table.add_column("epoch", width=5, justify="right")
    table.add_column(f"{named}\nread from", overflow="fold", width=11)
    table.add_column("to be\nfetched", width=7)
    notes: list[str] = []
    for model in found:
        own = _notes(model)
        notes += [note for note in own if note not in notes]
        value = score(model, metric)
        marks = f"[{','.join(str(notes.index(note) + 1) for note in own)}]" if own else ""
        table.add_row(
            "*" if best is not None and model == best.model else "",
            Text(f"{model.name}\n{model.model_id}\n{_where(model)}"),
            Text(f"{model.task_name}\n{model.project}\n{model.task_status}\n"),
            {True: "yes", False: "no", None: "?"}[model.pruned],
            str(model.epoch) if model.epoch is not None else "?",
            Text(f"{value:.4f}\n{model.metric_source}" if value is not None else "?"),
            Text(f"{'yes' if model.fetchable else 'no'}\n{marks}"),
        )
    reason = best.reason if best else f"no best model: {why_none}" if why_none else "no best model"
    below = Table.grid(padding=(0, 1))
    for number, note in enumerate(notes, start=1):
        below.add_row(Text(f"[{number}]"), Text(note))
    below.add_row(Text("*" if best else " "), Text(reason))
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(Group(table, below))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _where(model: TrainedModel) -> str:
    """Return where the weights are: the path, of a URL the server or bucket."""
    parts = urlsplit(model.uri)
    if parts.scheme in ("", "file"):
        return unquote(parts.path)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _notes(model: TrainedModel) -> list[str]:
    """Return what a row has no room for: why weights are not here, what evidence is at odds."""
    notes = []
    if not model.fetchable and urlsplit(model.uri).scheme in ("", "file"):
        notes.append(
            "a path of the machine or container that trained it, never uploaded: set CLEARML_DEFAULT_OUTPUT_URI "
            "for the next run; now: tao2serve adopt RESULTS_DIR --project NAME --task NAME, which uploads the run, or "
            "tao2serve deploy ID --endpoint NAME --weights FILE --spec FILE, which uploads this file"
        )
    elif not model.fetchable:
        notes.append(model.unfetchable_reason)
    if model.registered_model_id:
        notes.append(f"uploaded for model {model.registered_model_id}, which holds only {model.registered_uri}")
    if model.metric_note:
        notes.append(f"metric: {model.metric_note}")
    if any(said.startswith("against it") for said in model.lineage.evidence):
        notes.append(f"pruned or not: {'; '.join(model.lineage.evidence)}")
    return notes
