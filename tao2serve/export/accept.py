"""Model files we did not make: ONNX from TAO's own exporter is taken as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.lean import check_decoding, decoding_in
from tao2serve.export.operators import check_operators
from tao2serve.export.origin import origin_of
from tao2serve.export.precision.carried import precision_of
from tao2serve.export.shapes import check_shapes
from tao2serve.export.signature import check_against_spec, load_onnx, signature_of
from tao2serve.export.stored import check_stored, content_sha256
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelArtifact, ModelSignature

__all__ = ["accept_onnx"]


def accept_onnx(path: Path, *, spec: ExperimentSpec | None = None) -> ModelArtifact:
    """Take an ONNX file as the artifact it is; it is checked, and not changed.

    Weights beside the file (ONNX external data) must lie in its folder and are named in `companions`. What is
    wrong with its numbers, where the file proves it, is in `warnings`. Raises InputError for anything that is
    not a sound DetectNet_v2 network with open batch size, or does not fit `spec`.
    """
    if not path.is_file():
        raise InputError(str(path), "does not exist")
    model = load_onnx(path)
    check_operators(path, model)
    companions = check_stored(path, model)
    signature = signature_of(model, subject=str(path))
    _check_interface(path, model, signature)
    try:
        # By its path, because what the file keeps beside itself is looked for there, and only after check_stored.
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, or RuntimeError from the C++ side
        raise InputError(str(path), "is not valid ONNX", evidence=str(error).strip()[:300]) from error
    check_shapes(path, model)
    if spec is not None:
        check_against_spec(signature, spec, subject=str(path))
        if signature.gives_boxes:
            check_decoding(decoding_in(model), spec, subject=str(path))
    warning = origin_of(model, subject=str(path)).warning
    return ModelArtifact(
        format="onnx",
        path=path,
        sha256=sha256_of(path),
        precision=precision_of(model),
        signature=signature,
        source_sha256=content_sha256(path, companions),
        companions=companions,
        warnings=(warning,) if warning else (),
    )


def _check_interface(path: Path, model: ModelProto, signature: ModelSignature) -> None:
    """Raise InputError unless input and outputs are what an endpoint can feed: floats or pixels, with N open."""
    floats = (signature.coverage, signature.bbox)
    for tensor in floats if signature.takes_pixels else (signature.input, *floats):
        if tensor.datatype not in ("FP32", "FP16"):
            raise InputError(
                str(path),
                "does not take and give floating point numbers",
                evidence=f"{tensor.name} is {tensor.datatype}",
                hint="a TAO detector takes float32 in [0, 1]; one that scales inside takes uint8 pixels (N, H, W, 3) "
                "under the name pixels: tao2serve export --uint8-input",
            )
    names = {signature.input.name, signature.coverage.name, signature.bbox.name}
    for item in (*model.graph.input, *model.graph.output):
        batch = item.type.tensor_type.shape.dim[:1]
        if item.name in names and batch and batch[0].dim_value > 0:
            # Triton would refuse every batch but this one, and so would parity, which runs image by image.
            raise InputError(
                str(path),
                f"has a batch size fixed to {batch[0].dim_value}, which rules out Triton's dynamic batching",
                evidence=f"the first dimension of {item.name}",
                hint="export it again with an open batch size, which is what TAO's exporters write by themselves",
            )
