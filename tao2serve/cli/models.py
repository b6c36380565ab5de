"""`tao2serve models`: the trained TAO models that ClearML tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tao2serve.cli.options import Json, Project, Tags, Task, selectors
from tao2serve.cli.output import print_json, print_text, quiet

if TYPE_CHECKING:
    from tao2serve.registry.trained import BestModel
    from tao2serve.values import TrainedModel


def models(project: Project = "", task: Task = "", tag: Tags = None, json_output: Json = False) -> None:
    """List the trained TAO models in ClearML, and say which is best and why.

    Example: tao2serve models --project street-detector
    """
    from tao2serve.config import home
    from tao2serve.errors import InputError
    from tao2serve.registry.trained import choose_best, find_trained_models

    chosen = selectors(project, task, tag)
    with quiet(home() / "logs" / "models.log"):
        found = find_trained_models(chosen)
        best = None
        if found:
            try:
                best = choose_best(found, subject=str(chosen))
            except InputError:
                best = None  # several, and nothing to choose by: the list says so
    if json_output:
        print_json(models_document(found, best))
    else:
        print_text(_table(found, best) if found else f"No trained TAO model in {chosen}.")


def models_document(found: Sequence[TrainedModel], best: BestModel | None) -> dict[str, Any]:
    """Return the JSON document of `tao2serve models`."""
    return {
        "models": [{**asdict(model), "best": best is not None and model == best.model} for model in found],
        "reason": best.reason if best else "",
    }


def _table(found: Sequence[TrainedModel], best: BestModel | None) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "model", "task", "pruned", "epoch", "mAP", "weights", "model id", box=None, pad_edge=False)
    for model in found:
        score = model.mean_average_precision
        table.add_row(
            "*" if best is not None and model == best.model else "",
            model.name,
            model.task_name,
            {True: "yes", False: "no", None: "?"}[model.pruned],
            str(model.epoch) if model.epoch is not None else "?",
            f"{score:.4f}" if score is not None else "?",
            "can be fetched" if model.fetchable else f"not here: {model.unfetchable_reason}",
            model.model_id,
        )
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, f"* {best.reason}" if best else "No best model: several, and no metric to choose by."])
