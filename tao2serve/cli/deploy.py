"""`tao2serve deploy`: from a trained model to an endpoint that answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import (
    AcceptParity,
    CalibrationCache,
    CalibrationImages,
    CalibrationMethod,
    Clustering,
    Endpoint,
    Instances,
    Json,
    Managed,
    MaxBatchSize,
    Metric,
    Placement,
    Precision,
    Project,
    Resize,
    ServeBoxes,
    ServePixels,
    Service,
    SmokeImage,
    Spec,
    Tags,
    Task,
    TunedFile,
    artifact_request,
    percent,
    seconds,
    selectors,
)
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError
from tao2serve.remote.carried import MODEL

if TYPE_CHECKING:
    from tao2serve.deployment.outcome import Deployment
    from tao2serve.deployment.plan import Plan
    from tao2serve.deployment.request import LoadGate


def deploy(
    endpoint: Endpoint,
    source: Annotated[
        str, MODEL, typer.Argument(metavar="SOURCE", help="A .hdf5 or .onnx file, or a ClearML model or task id.")
    ] = "",
    project: Project = "",
    task: Task = "",
    tag: Tags = None,
    metric: Metric = "",
    spec: Spec = None,
    clustering: Clustering = None,
    managed: Managed = None,
    placement: Placement = None,
    resize: Resize = None,
    uint8_input: ServePixels = None,
    absolute_boxes: ServeBoxes = None,
    max_batch_size: MaxBatchSize = None,
    instances: Instances = None,
    tuned: TunedFile = None,
    precision: Precision = None,
    calibration_images: CalibrationImages = None,
    calibration_cache: CalibrationCache = None,
    calibration_method: CalibrationMethod = "",
    accept_parity: AcceptParity = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights, if ClearML only knows their path.")
    ] = None,
    image: SmokeImage = None,
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="PERCENT", help="Share of the endpoint's requests; default: all of them."),
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo", metavar="LIMIT", help="Load gate before the alias is touched: p99=250ms; needs --gate-images."
        ),
    ] = None,
    gate_images: Annotated[
        Path | None, typer.Option("--gate-images", metavar="DIR", help="Pictures for the load gate.")
    ] = None,
    gate_time: Annotated[
        str, typer.Option("--gate-time", metavar="TIME", help="How long the load gate measures: 20s, 2m.")
    ] = "10s",
    force: Annotated[
        bool, typer.Option("--force", help="Make a new version, though an earlier one is the same.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would happen, and change nothing.")] = False,
    service: Service = None,
    json_output: Json = False,
) -> int:
    """Export, verify, publish and serve a trained model; what was serving stays until the new version answers.

    Run again with nothing changed it changes nothing; after a run that was killed it goes on.

    Example: tao2serve deploy --project street-detector --endpoint street --image street.jpg

    Example for the next version: tao2serve deploy --project street-detector --endpoint street --image street.jpg
    --canary 10
    """
    from tao2serve.config import home, load_settings
    from tao2serve.deploy import DeployRequest
    from tao2serve.deploy import deploy as run
    from tao2serve.deployment.outcome import Deployment, GateMissedError
    from tao2serve.deployment.plan import Plan, plan_deployment
    from tao2serve.errors import GateError
    from tao2serve.images import read_image
    from tao2serve.registry.source import Source
    from tao2serve.tuned import read_tuned

    proposed = read_tuned(tuned) if tuned is not None else None
    share = percent(canary, option="--canary") if canary is not None else None
    settings = load_settings(
        {
            "service": service,
            "managed": managed,
            "placement": placement,
            "resize": resize,
            "uint8_input": uint8_input,
            "absolute_boxes": absolute_boxes,
            "max_batch_size": max_batch_size,
            "instances": instances,
        },
        tuned=proposed.settings if proposed is not None else None,
    )
    request = DeployRequest(
        source=Source(
            text=source,
            selectors=selectors(project, task, tag, metric),
            spec=spec,
            weights=weights,
        ),
        endpoint=endpoint,
        image=read_image(image) if image else None,
        clustering=clustering,
        artifacts=artifact_request(
            precision,
            calibration_images=calibration_images,
            calibration_cache=calibration_cache,
            calibration_method=calibration_method,
            accept_parity=accept_parity,
            uint8_input=settings.uint8_input,
            absolute_boxes=settings.absolute_boxes,
            images=image,
            must_be_judged=True,
        ),
    )
    gate = load_gate(slo, gate_images, gate_time)
    request = replace(request, canary=share, gate=gate, force=force, tuned=proposed)
    with quiet(home() / "logs" / "deploy.log") as terminal, shown_steps(terminal) as steps:
        try:
            outcome = plan_deployment(request, settings, steps=steps) if plan else run(request, settings, steps=steps)
        except GateMissedError as missed:
            outcome = missed.deployment
    if json_output:
        print_json(outcome.to_dict())
    else:
        print_text(plan_in_words(outcome) if isinstance(outcome, Plan) else in_words(outcome))
    return GateError.exit_code if isinstance(outcome, Deployment) and not outcome.passed else 0


def load_gate(slo: list[str] | None, images: Path | None, run_time: str) -> LoadGate | None:
    """Gather the options of the load gate; raises UsageError if one of them is missing or no such thing."""
    from tao2serve.deployment.request import LoadGate
    from tao2serve.loadtest import parse_gate

    if not slo:
        if images is not None:
            raise UsageError("--gate-images", "is given, and no gate", hint="add: --slo p99=250ms")
        return None
    if images is None:
        raise UsageError("--slo", "needs pictures to load-test with", hint="add: --gate-images DIR")
    run_time_s = seconds(run_time, option="--gate-time")
    return LoadGate(gates=tuple(parse_gate(text) for text in slo), images=images, run_time_s=run_time_s)


def plan_in_words(plan: Plan) -> str:
    """Return a plan, a line for each step."""
    lines = [f"{step.would:<8} {step.name}{': ' if step.detail else ''}{step.detail}" for step in plan.steps]
    end = "this would be changed; nothing has been" if plan.changes else "nothing would be changed"
    return "\n".join([*lines, f"{plan.endpoint.url}: {end}"])


def in_words(deployment: Deployment) -> str:
    """Return what came of a deployment in a few lines."""
    from tao2serve.serving.routes import described

    endpoint, lines = deployment.endpoint, [f"warning: {warning}" for warning in deployment.warnings]
    if not deployment.passed:
        lines += [f"MISSED     {reason}" for reason in (deployment.load or {}).get("reasons", ())]
        return "\n".join([*lines, f"version {endpoint.version} is taken away again; the alias is as it was"])
    after = deployment.alias.after
    shares = f"version {endpoint.version}" if len(after) == 1 else described(after)
    return "\n".join([
        *lines,
        f"{endpoint.alias_url} answers with {shares}{'' if deployment.changed else '; nothing has changed'}",
        f"ask it:    tao2serve predict {endpoint.name} IMAGE.jpg -o out",
        f"load test: tao2serve loadtest {endpoint.name} --images DIR",
    ])  # fmt: skip
