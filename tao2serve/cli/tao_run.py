"""`tao2serve tao run`: NVIDIA's whole notebook, taken up where it stopped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tao2serve.cli.output import InterruptionError, print_json, print_text
from tao2serve.cli.tao_job import (
    checks_for,
    live,
    plan_document,
    plan_text,
    require_file,
    require_name,
    require_ready,
    shown_checks,
)
from tao2serve.cli.tao_options import Common, Prepared, prepare, with_common
from tao2serve.errors import Tao2ServeError

if TYPE_CHECKING:
    from tao2serve.tao.preflight import PreflightCheck
    from tao2serve.tao.sequence import SequenceRequest, SequenceStep, StepReport

AFTERMATH: Final = "what is finished stays; run it again, and it goes on from there"


@with_common(trains=True)
def run(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Experiment spec of the training.")],
    results: Annotated[Path, typer.Option("--results", "-r", metavar="DIR", help="Folder of all steps and the state.")],
    retrain_spec: Annotated[
        Path | None,
        typer.Option("--retrain-spec", metavar="FILE", help="Spec of the retraining; default: made of SPEC."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="Name of the models' files, without .hdf5.")
    ] = "model",
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", min=0, max=1, help="Pruning: filters of a smaller norm go.")
    ] = 0.1,
    gpus: Annotated[int, typer.Option("--gpus", metavar="N", min=1, max=64, help="GPUs to train on.")] = 1,
    amp: Annotated[bool, typer.Option("--amp", help="Train in automatic mixed precision.")] = False,
    *,
    common: Common,
) -> None:
    """Train, evaluate, prune, retrain, evaluate and export; run again, it goes on where it stopped.

    What is finished is skipped, and said. A training that was cut short goes on from TAO's last checkpoint.

    Example: tao2serve tao run experiment_spec.txt --results results --mount ~/data:/workspace/data
    """
    from tao2serve.tao.sequence import SequenceRequest
    from tao2serve.tao.subtask import PruneOptions

    require_name(name)
    for file in (spec, *((retrain_spec,) if retrain_spec else ())):
        require_file(file)
    request = SequenceRequest(
        spec=spec, results=results, name=name, retrain_spec=retrain_spec, gpus=gpus, amp=amp,
        prune=PruneOptions(threshold=threshold),
    )  # fmt: skip
    # All of the results: the retraining's spec names the pruned model, which no argument does.
    prepared = prepare(common, spec_to_track=spec).showing(results)
    checks = _checks(prepared, common, request)
    if common.dry_run:
        _show_plan(request, prepared, checks, as_json=common.json_output)
        return
    require_ready(checks)
    _carry_out(request, prepared, as_json=common.json_output)


def _checks(prepared: Prepared, common: Common, request: SequenceRequest) -> tuple[PreflightCheck, ...]:
    from tao2serve.tao.sequence import pruned_in_container

    specs = tuple(spec for spec in (request.spec, request.retrain_spec) if spec is not None)
    pruned = pruned_in_container(request, prepared.place)
    return checks_for(prepared, common, group="model", specs=specs, models=(), trains=True, expected=(pruned,))


def _show_plan(
    request: SequenceRequest, prepared: Prepared, checks: tuple[PreflightCheck, ...], *, as_json: bool
) -> None:
    from tao2serve.tao.running import planned
    from tao2serve.tao.sequence import finished_steps, sequence_steps

    skipped = finished_steps(request, prepared.place)
    steps = [(step, planned(prepared.request(step.subtask, results=step.results))) for step in sequence_steps(request)]
    if as_json:
        print_json(
            {
                "outcome": "planned",
                "steps": [
                    {"name": step.name, "skipped": step.name in skipped, **plan_document(plan, prepared)}
                    for step, plan in steps
                ],
                "preflight": [asdict(check) for check in checks],
            }
        )
        return
    lines = list(shown_checks(checks))
    for step, plan in steps:
        if step.name in skipped:
            lines.append(f"{step.name}: finished before, and skipped")
        else:
            lines += [step.name, *(f"  {line}" for line in plan_text(plan, prepared))]
    print_text("\n".join(lines))


def _carry_out(request: SequenceRequest, prepared: Prepared, *, as_json: bool) -> None:
    from tao2serve.tao.running import run_tao
    from tao2serve.tao.sequence import run_sequence

    at = ""

    def carry_out(step: SequenceStep, log: Path) -> None:
        run_tao(prepared.request(step.subtask, results=step.results, log=log), on_news=live)

    def told(step: SequenceStep, report: StepReport | None) -> None:
        nonlocal at
        at = step.name
        live(f"tao2serve: {step.name} begins" if report is None else f"tao2serve: {_said(report)}")

    try:
        reports = run_sequence(request, prepared.place, run=carry_out, on_step=told)
    except Tao2ServeError as error:
        error.step, error.aftermath = error.step or at, error.aftermath or AFTERMATH
        raise
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"step: {at}")
        interrupt.add_note(f"aftermath: {AFTERMATH}")
        raise InterruptionError(interrupt) from interrupt
    if as_json:
        document: dict[str, Any] = {"outcome": "ok", "results": str(request.results)}
        print_json({**document, "steps": [report.to_dict() for report in reports], "onnx": str(reports[-1].output)})
        return
    print_text("\n".join([*(_said(report) for report in reports), f"model:  {reports[-1].output}"]))


def _said(report: StepReport) -> str:
    precision = "" if report.mean_average_precision is None else f", mAP {report.mean_average_precision:.4f}"
    if report.state == "skipped":
        return f"skipped   {report.name}: finished before{precision}  {report.output}"
    return f"finished  {report.name} in {report.seconds:.0f} s{precision}  {report.output}"
