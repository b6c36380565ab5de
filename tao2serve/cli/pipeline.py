"""`tao2serve pipeline`: from a trained model to a promoted version, as a ClearML pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

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
    selectors,
)
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.pipeline_options import (
    Canary,
    GateImages,
    GateTime,
    Queue,
    QueueImage,
    QueueWait,
    Slo,
    Until,
    Users,
    VerifyImages,
    given_options,
    pipeline_request,
    queue_wish,
)
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.config import Settings
    from tao2serve.pipeline.request import PipelineRequest
    from tao2serve.pipeline.run import PipelineOutcome

# Options that are settings, which hold in every step.
FLAGS: Final = (
    "service", "placement", "resize", "uint8_input", "absolute_boxes", "max_batch_size", "instances",
)  # fmt: skip


def pipeline(
    endpoint: Endpoint,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A ClearML model or task id.")] = "",
    project: Project = "",
    task: Task = "",
    tag: Tags = None,
    metric: Metric = "",
    spec: Spec = None,
    clustering: Clustering = None,
    placement: Placement = None,
    resize: Resize = None,
    uint8_input: ServePixels = None,
    absolute_boxes: ServeBoxes = None,
    max_batch_size: MaxBatchSize = None,
    instances: Instances = None,
    precision: Precision = None,
    calibration_images: CalibrationImages = None,
    calibration_cache: CalibrationCache = None,
    calibration_method: CalibrationMethod = "",
    accept_parity: AcceptParity = False,
    image: SmokeImage = None,
    images: VerifyImages = None,
    canary: Canary = "10",
    slo: Slo = None,
    gate_images: GateImages = None,
    gate_time: GateTime = "10s",
    users: Users = 2,
    from_step: Annotated[
        str, typer.Option("--from-step", metavar="STEP", help="Run this step anew, and all that follow.")
    ] = "",
    until: Until = "promote",
    queue: Queue = None,
    queue_wait: QueueWait = None,
    queue_image: QueueImage = None,
    watched_by: Annotated[str, typer.Option("--watched-by", hidden=True)] = "",
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Choose, export, build, verify, publish, deploy as a canary, load-test and promote: a ClearML task for each.

    A gate that is missed ends it (exit 7 or 8). Run again, it goes on from the step that failed: a step is not run
    again while its inputs are the same and what it left is there.

    Example: tao2serve pipeline --project street-detector --endpoint street --gate-images pictures --slo p99=250ms
    """
    request, settings = request_of(dict(locals()))
    from tao2serve.config import home
    from tao2serve.pipeline.run import run_pipeline

    with quiet(home() / "logs" / "pipeline.log") as terminal, shown_steps(terminal) as steps:
        outcome = run_pipeline(request, settings, steps=steps)
    if json_output:
        print_json(outcome.to_dict())
    else:
        print_text(in_words(outcome))


def request_of(given: Mapping[str, Any]) -> tuple[PipelineRequest, Settings]:
    """Return what the parameters of `pipeline` ask for, by their names, with the effective settings.

    Raises UsageError for what cannot be asked for.
    """
    from tao2serve.config import load_settings
    from tao2serve.registry.source import Source

    flags = {name: given[name] for name in FLAGS}
    settings = load_settings(flags)
    making = given_options(
        {
            "--spec": given["spec"], "--clustering": given["clustering"],
            "--calibration-images": given["calibration_images"], "--calibration-cache": given["calibration_cache"],
        },
        {"--precision": given["precision"], "--calibration-method": given["calibration_method"]},
        *(["--accept-parity"] if given["accept_parity"] else []),
    )  # fmt: skip
    chosen = selectors(given["project"], given["task"], given["tag"], given["metric"])
    request = pipeline_request(
        Source(text=given["source"], selectors=chosen, spec=given["spec"]), settings, flags,
        endpoint=given["endpoint"], making=making, image=given["image"], verify_images=given["images"],
        canary=given["canary"], slo=given["slo"], gate_images=given["gate_images"], gate_time=given["gate_time"],
        users=given["users"], from_step=given["from_step"], until=given["until"], watch=given["watched_by"],
        queue=queue_wish(given["queue"], given["queue_wait"], given["queue_image"], settings, making),
    )  # fmt: skip
    return request, settings


def in_words(outcome: PipelineOutcome) -> str:
    """Return what came of a pipeline, a line for each step."""
    document = outcome.to_dict()
    lines = [f"{one['status']:<7} {one['step']:<9} {one['detail']}" for one in document["pipeline"]]
    end = f"ClearML pipeline {outcome.task_id}" if outcome.task_id else "nothing had to run"
    return "\n".join([*lines, end, f"see it:    tao2serve status {outcome.request.endpoint}"])
