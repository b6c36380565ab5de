"""`tao2serve build`: a trained model as Triton models in a repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tao2serve.cli.options import (
    AcceptParity,
    CalibrationCache,
    CalibrationImages,
    CalibrationMethod,
    Clustering,
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
    Spec,
    Tags,
    Task,
    artifact_request,
    selectors,
)
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.build import Build

REPOSITORY: Final = "model_repository"


def build(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the model to ask on Triton.")],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A .hdf5, .onnx or .plan file, or a ClearML model or task id.")
    ] = "",
    repository: Annotated[
        Path | None,
        typer.Option(
            "--repository",
            metavar="DIR",
            help="Model repository; default: the setting model_repository, else ./model_repository.",
        ),
    ] = None,
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
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights, if ClearML only knows their path.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Picture with objects, by which another precision is judged."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write the Triton models of a trained model into a repository, without deploying; no server is changed.

    Models that are there are never rewritten: the same again is accepted, others under the same name are refused.

    Example: tao2serve build weights/model.hdf5 --spec experiment_spec.txt --name street --placement ensemble
    """
    from tao2serve.build import BuildRequest
    from tao2serve.build import build as run
    from tao2serve.config import home, load_settings
    from tao2serve.registry.source import Source

    if image and not precision:
        raise UsageError("--image", "judges another precision", hint="add: --precision fp16 or int8")
    settings = load_settings(
        {
            "placement": placement,
            "resize": resize,
            "uint8_input": uint8_input,
            "absolute_boxes": absolute_boxes,
            "max_batch_size": max_batch_size,
            "instances": instances,
        }
    )
    if resize and settings.placement == "endpoint":
        raise UsageError("--resize", "does nothing here: with placement endpoint Triton reads no pictures")
    request = BuildRequest(
        source=Source(text=source, selectors=selectors(project, task, tag, metric), spec=spec, weights=weights),
        name=name,
        repository=repository or settings.model_repository or Path(REPOSITORY),
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
    with quiet(home() / "logs" / "build.log") as terminal, shown_steps(terminal) as steps:
        built = run(request, settings, steps=steps)
    if json_output:
        print_json(built.to_dict())
    else:
        print_text(_summary(built, source, settings.triton_grpc))


def _summary(built: Build, source: str, triton: str) -> str:
    from tao2serve.triton.models import detector_name

    asked = built.models[-1]
    lines = [f"warning: {warning}" for warning in built.warnings]
    lines += [
        f"{model.path}  {model.backend}{'' if model.created else ', there already, unchanged'}"
        for model in built.models
    ]
    lines.append(
        f"start it: tritonserver --model-repository={asked.repository} --model-control-mode=explicit "
        f"--load-model={asked.name}"
    )
    network = asked.name
    if built.placement == "ensemble":
        network = detector_name(asked.name)
        lines.append(
            f"ask it:   {asked.name}: the bytes of a picture as BYTES tensor `image`, boxes as `detections`, "
            "`count` of them (model_repo/README.md)"
        )
    else:
        lines.append(f"ask it:   {asked.name}: {built.artifact.signature}: the network alone")
    lines.append(f"check it: tao2serve verify {source or 'WEIGHTS'} grpc://{triton or '127.0.0.1:8001'}/{network}")
    return "\n".join(lines)
