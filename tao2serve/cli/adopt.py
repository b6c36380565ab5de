"""`tao2serve adopt`: put a finished TAO results folder into ClearML as if TAO had been tracked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json, one_of
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.adoption import Outcome


def adopt(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS_DIR", help="What `detectnet_v2 train -r` named: weights, status.json …")
    ],
    spec: Annotated[
        Path | None,
        typer.Option("--spec", metavar="FILE", help="The training's experiment spec, if it is not in the folder."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="What TAO printed, if it is not in the folder.")
    ] = None,
    project: Annotated[
        str, typer.Option("--project", metavar="NAME", help="ClearML project; default: the spec's clearml_config.")
    ] = "",
    task: Annotated[
        str, typer.Option("--task", metavar="NAME", help="Name of the run; TAO's way, its time is put behind it.")
    ] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="For run and models; may be given several times.")
    ] = None,
    checkpoints: Annotated[
        str,
        typer.Option("--checkpoints", metavar="WHICH", help="best (by mAP, and the final weights), last, or all."),
    ] = "best",
    made_from: Annotated[
        str,
        typer.Option("--made-from", metavar="ID", help="Model or task it was pruned from; default: found by content."),
    ] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be uploaded, and change nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Put a finished TAO training into ClearML as if it had been tracked: weights uploaded, curves, spec, lineage.

    Run it again after an interruption, or when checkpoints came to the folder: nothing is sent twice.

    Example: tao2serve adopt results/unpruned --project street-detector --task detectnet_v2_train --tag unpruned
    """
    from tao2serve.adoption import AdoptionRequest, adopt_results
    from tao2serve.config import home
    from tao2serve.registry.adoption.plan import CHOICES

    request = AdoptionRequest(
        folder=results,
        spec=spec,
        log=log,
        project=project.strip(),
        task=task.strip(),
        tags=tuple(tag or ()),
        checkpoints=one_of(checkpoints, CHOICES, option="--checkpoints"),
        made_from=made_from.strip(),
        plan=plan,
    )
    with quiet(home() / "logs" / "adopt.log") as terminal, shown_steps(terminal) as steps:
        outcome = adopt_results(request, steps=steps)
    if json_output:
        print_json(outcome.to_dict())
    else:
        print_text(summary(outcome))


def summary(outcome: Outcome) -> str:
    """Return what is planned or was done, for people."""
    from tao2serve.loadtest.addresses import shown_url

    adoption, uploaded = outcome.adoption, outcome.uploaded
    missing = {one.sha256 for one in outcome.missing}
    lines = []
    for one in adoption.chosen:
        if uploaded is None:
            state = "to upload" if one.sha256 in missing else "there"
        else:
            state = "uploaded" if one.sha256 in missing else "was there"
        epoch = f"epoch {one.epoch}" if one.epoch is not None else "epoch ?"
        value = one.mean_average_precision
        score = f"mAP {value:.4f} ({one.reading.source})" if value is not None and one.reading else "mAP ?"
        size = f"{one.file.bytes / 1e6:,.1f} MB"
        lines.append(f"{state:<9}  {one.file.path.name}  {size}  {epoch}  {score}  ({one.why})")
    lines += [f"note: {note}" for note in outcome.notes]
    total = sum(one.file.bytes for one in outcome.missing)
    if uploaded is None:
        again = " (nothing is missing)" if outcome.complete_before else ""
        storage = shown_url(adoption.storage)
        lines.append(f"would upload {total / 1e6:,.1f} MB to {storage}{again}; nothing was changed")
    elif not uploaded.added:
        lines.append(f"unchanged: ClearML task {uploaded.task_id} has all of it")
    else:
        lines.append(f"adopted as {adoption.name} in {adoption.project}, ClearML task {uploaded.task_id}")
    if uploaded is not None:
        lines.append(f"see it:  tao2serve models --project {shlex.quote(adoption.project)}")
    return "\n".join(lines)
