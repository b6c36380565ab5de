"""Put what was built into ClearML, with its lineage."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve import __version__, runtime
from tao2serve.errors import ServiceError
from tao2serve.registry.operation import Operation
from tao2serve.registry.session import clearml, translated
from tao2serve.values import ModelArtifact, TrainedModel

__all__ = ["PublishedModel", "publish"]

PACKAGE_PARAMS = "params.json"
PACKAGE_ORIGINAL = "original.onnx"
# What runs the ONNX file on a Triton whose controller loads the package as it is.
PACKAGE_CODE, CODE = "model.py", Path(runtime.__file__).with_name("triton_model.py")
# By format: the file's name in the package, and ClearML's word for what it is.
PACKAGE_MODELS = {"onnx": ("model.onnx", "ONNX"), "tensorrt_plan": ("model.plan", "TensorRT")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """An artifact as ClearML holds it."""

    model_id: str
    uri: str


def publish(
    operation: Operation,
    artifact: ModelArtifact,
    *,
    name: str,
    params: Mapping[str, Any],
    trained: TrainedModel | None,
    original: ModelArtifact | None = None,
) -> PublishedModel:
    """Upload an artifact as a model of the operation's task, from a copy, and return it.

    It travels as a folder package holding `model.onnx` (`model.plan`) and `params.json`: clearml-serving's Triton
    controller renames a single file to `model.bin`, and moves a file it is given by path. TAO's own graph, where
    another one made from it is served, is there as `original.onnx`: engines and other precisions start from it.
    """
    with tempfile.TemporaryDirectory(prefix="tao2serve-publish-") as scratch:
        # Packed here and not by the SDK, which leaves its package behind in the temporary folder.
        package = Path(scratch) / f"{name}.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.write(artifact.path, PACKAGE_MODELS[artifact.format][0])
            if artifact.format == "onnx":
                archive.write(CODE, PACKAGE_CODE)
            for companion in artifact.companions:
                archive.write(companion, companion.relative_to(artifact.path.parent))
            if original is not None:
                archive.write(original.path, PACKAGE_ORIGINAL)
            archive.writestr(PACKAGE_PARAMS, json.dumps(params, indent=2))
        with translated(f"artifact {name}", "could not be published to ClearML"):
            return _upload(operation, artifact, name, package, trained, original)


def _upload(
    operation: Operation,
    artifact: ModelArtifact,
    name: str,
    package: Path,
    trained: TrainedModel | None,
    original: ModelArtifact | None,
) -> PublishedModel:
    if trained is not None:
        operation.task.set_input_model(model_id=trained.model_id, name="trained model")
    classes = artifact.signature.class_count
    model = clearml().OutputModel(
        task=operation.task,
        name=name,
        framework=PACKAGE_MODELS[artifact.format][1],
        tags=["tao2serve", artifact.precision],
        comment=f"{classes} classes, built by tao2serve {__version__}",
    )
    model.update_weights(
        weights_filename=str(package),
        auto_delete_file=False,
        update_comment=False,  # it would hold a path of this machine
        is_package=True,
        async_enable=False,
    )
    uri = str(model.url or "")
    for key, value in {
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "source_sha256": artifact.source_sha256,
        "original_sha256": original.sha256 if original else "",
        "source_model": trained.model_id if trained else "",
        "tao2serve": __version__,
    }.items():
        model.set_metadata(key, value, "str")
    if not uri or uri.startswith("file://"):
        raise ServiceError(
            f"artifact {name}",
            "was not uploaded: ClearML has no storage to put it in",
            evidence=f"URI {uri!r}",
            hint="set api.files_server in clearml.conf, or CLEARML_DEFAULT_OUTPUT_URI",
        )
    return PublishedModel(model_id=str(model.id), uri=uri)
