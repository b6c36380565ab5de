"""The preprocess code of one endpoint version: the runtime, its parameters and its settings, in one folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tao2serve import runtime
from tao2serve.config import Settings
from tao2serve.errors import InputError, UsageError
from tao2serve.registry.publish import PublishedModel
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.answer import ServedModel
from tao2serve.runtime.endpoint import PARAMS_FILE, SETTINGS_FILE, EndpointSettings
from tao2serve.serving.service import EndpointVersion
from tao2serve.values import ModelArtifact

__all__ = ["check_servable", "write_package"]

SHIPPED: Final = "*.py"


def check_servable(artifact: ModelArtifact, settings: Settings) -> None:
    """Raise InputError for a network whose input or outputs the endpoint cannot carry: float32, or pixels in."""
    signature = artifact.signature
    if signature.takes_pixels and settings.uint8_input is False:
        raise UsageError(
            "--no-uint8-input",
            "cannot be had of a graph that takes pixels",
            evidence=str(artifact.path),
            hint="give the graph or the weights that it was made from",
        )
    taken = "UINT8" if signature.takes_pixels else "FP32"
    for tensor, datatype in ((signature.input, taken), (signature.coverage, "FP32"), (signature.bbox, "FP32")):
        if tensor.datatype != datatype:
            raise InputError(
                str(artifact.path),
                "cannot be served yet: its input and outputs must be float32",
                evidence=f"{tensor.name} is {tensor.datatype}",
                hint="export it with float32 input and outputs; the tensors inside may be of any type",
            )


def write_package(
    endpoint: EndpointVersion,
    model: PublishedModel,
    artifact: ModelArtifact,
    params: DetectorParams,
    settings: Settings,
    *,
    directory: Path,
) -> Path:
    """Write the package into the new folder `directory` and return it; the runtime's files are copied verbatim."""
    document = EndpointSettings(
        model=ServedModel(endpoint=endpoint.name, version=str(endpoint.version), id=model.model_id),
        triton_model=endpoint.triton_model,
        placement=settings.placement,
        resize=settings.resize,
        input="uint8" if artifact.signature.takes_pixels else "float32",
        boxes="absolute" if artifact.signature.gives_boxes else "offsets",
        input_name=artifact.signature.input.name,
        coverage_name=artifact.signature.coverage.name,
        bbox_name=artifact.signature.bbox.name,
        deadline_s=settings.deadline_s,
        max_pixels=settings.max_image_pixels,
        max_bytes=settings.max_image_bytes,
    )
    directory.mkdir(parents=True)
    for source in sorted(Path(runtime.__file__).parent.glob(SHIPPED)):
        shutil.copyfile(source, directory / source.name)
    (directory / PARAMS_FILE).write_text(json.dumps(params.to_dict(), indent=2), encoding="utf-8")
    (directory / SETTINGS_FILE).write_text(json.dumps(asdict(document), indent=2), encoding="utf-8")
    return directory
