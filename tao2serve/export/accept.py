"""Model files we did not make: ONNX from TAO's own exporter is taken as it is."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import onnx
from onnx import ModelProto, TensorProto

from tao2serve.errors import InputError
from tao2serve.export.signature import check_against_spec, load_onnx, signature_of
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelArtifact

__all__ = ["accept_onnx"]


def accept_onnx(path: Path, *, spec: ExperimentSpec | None = None) -> ModelArtifact:
    """Take an ONNX file as the artifact it is; it is checked, and not changed.

    Weights beside the file (ONNX external data) must lie in its folder and are named in `companions`.
    Raises InputError for anything that is not a sound DetectNet_v2 network, or does not fit `spec`.
    """
    if not path.is_file():
        raise InputError(str(path), "does not exist")
    model = load_onnx(path)
    companions = _external_files(path, model)
    signature = signature_of(model, subject=str(path))
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, or RuntimeError from the C++ side
        raise InputError(str(path), "is not valid ONNX", evidence=str(error).strip()[:300]) from error
    if spec is not None:
        check_against_spec(signature, spec, subject=str(path))
    digest = sha256_of(path)
    return ModelArtifact(
        format="onnx",
        path=path,
        sha256=digest,
        precision=_precision(model),
        signature=signature,
        source_sha256=digest,
        companions=companions,
    )


def _tensors(model: ModelProto) -> list[TensorProto]:
    """Return every stored tensor of the main graph: weights, and constants in nodes."""
    return [
        *model.graph.initializer,
        *(attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")),
        *(tensor for node in model.graph.node for attribute in node.attribute for tensor in attribute.tensors),
    ]


def _external_files(path: Path, model: ModelProto) -> tuple[Path, ...]:
    """Return the files that hold external data. Raises InputError if one is outside the model's folder."""
    folder = path.resolve().parent
    found: dict[Path, None] = {}
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        resolved = (folder / location).resolve()
        if not location or PurePosixPath(location).is_absolute() or not resolved.is_relative_to(folder):
            raise InputError(
                str(path),
                "keeps weights outside its own folder",
                evidence=f"{tensor.name}: {location!r}"[:300],
                hint="save the model as one file (onnx.save_model with save_as_external_data=False)",
            )
        if not resolved.is_file():
            raise InputError(str(path), "misses a file with its weights", evidence=f"{tensor.name}: {location!r}"[:300])
        found[resolved] = None
    return tuple(found)


def _precision(model: ModelProto) -> str:
    """Name the precision the file carries: Q/DQ pairs are int8, half-precision weights fp16."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    if any(item.data_type == TensorProto.FLOAT16 for item in model.graph.initializer):
        return "fp16"
    return "fp32"
