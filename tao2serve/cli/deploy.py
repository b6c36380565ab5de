"""`tao2serve deploy`: from a trained model to an endpoint that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tao2serve.cli.options import (
    AcceptParity,
    CalibrationCache,
    CalibrationImages,
    CalibrationMethod,
    Clustering,
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
    Spec,
    Tags,
    Task,
    artifact_request,
    selectors,
)
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps


def deploy(
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="NAME", help="Name of the endpoint.")],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A .hdf5 or .onnx file, or a ClearML model or task id.")
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
    precision: Precision = None,
    calibration_images: CalibrationImages = None,
    calibration_cache: CalibrationCache = None,
    calibration_method: CalibrationMethod = "",
    accept_parity: AcceptParity = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights, if ClearML only knows their path.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Picture for the smoke request and the parity of boxes."),
    ] = None,
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Export, verify, publish and serve a trained model; what was serving stays until the new version answers.

    Example: tao2serve deploy --project street-detector --endpoint street
    """
    from tao2serve.config import home, load_settings
    from tao2serve.deploy import DeployRequest
    from tao2serve.deploy import deploy as run
    from tao2serve.images import read_image
    from tao2serve.registry.source import Source

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
        }
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
    with quiet(home() / "logs" / "deploy.log") as terminal, shown_steps(terminal) as steps:
        deployment = run(request, settings, steps=steps)
    if json_output:
        print_json(deployment.to_dict())
        return
    for warning in deployment.warnings:
        print_text(f"warning: {warning}")
    print_text(
        f"{deployment.endpoint.alias_url} answers with version {deployment.endpoint.version}\n"
        f"ask it:    tao2serve predict {deployment.endpoint.name} IMAGE.jpg -o out\n"
        f"load test: tao2serve loadtest {deployment.endpoint.name} --images DIR"
    )
