"""`tao2serve step`: what only the steps of a pipeline do by themselves; `pipeline` runs it."""

from __future__ import annotations

from typing import Annotated

import typer

from tao2serve.cli.options import (
    AcceptParity,
    CalibrationCache,
    CalibrationImages,
    CalibrationMethod,
    Clustering,
    Endpoint,
    Json,
    Precision,
    Spec,
    artifact_request,
    one_of,
)
from tao2serve.cli.output import print_json, quiet
from tao2serve.cli.progress import shown_steps


def step(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="choose or publish.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ClearML model id.")],
    endpoint: Endpoint = "",
    spec: Spec = None,
    clustering: Clustering = None,
    precision: Precision = None,
    calibration_images: CalibrationImages = None,
    calibration_cache: CalibrationCache = None,
    calibration_method: CalibrationMethod = "",
    accept_parity: AcceptParity = False,
    json_output: Json = False,
) -> None:
    """Do one step of a pipeline that is no command of its own.

    Example: tao2serve step choose MODEL_ID --json
    """
    from tao2serve.config import home, load_settings
    from tao2serve.deployment.request import DeployRequest
    from tao2serve.pipeline.alone import choose_alone, publish_alone
    from tao2serve.registry.source import Source

    chosen = one_of(kind, ("choose", "publish"), option="KIND")
    settings = load_settings()
    source = Source(text=model, spec=spec)
    with quiet(home() / "logs" / "step.log") as terminal, shown_steps(terminal) as steps:
        if chosen == "choose":
            document = choose_alone(source, clustering, steps=steps)
        else:
            made = artifact_request(
                precision, calibration_images=calibration_images, calibration_cache=calibration_cache,
                calibration_method=calibration_method, accept_parity=accept_parity, uint8_input=settings.uint8_input,
                absolute_boxes=settings.absolute_boxes, must_be_judged=True,
            )  # fmt: skip
            request = DeployRequest(source=source, endpoint=endpoint, clustering=clustering, artifacts=made)
            document = publish_alone(request, settings, steps=steps)
    print_json(document)
