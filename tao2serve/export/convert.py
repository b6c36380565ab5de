"""Model file in, ONNX artifact out: the entry point of this room."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx, refuse_encrypted
from tao2serve.export.atomic import write_atomically
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.signature import check_against_spec, signature_of
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelArtifact

__all__ = ["export_onnx"]

logger = logging.getLogger(__name__)


def export_onnx(source: Path, *, output: Path, spec: ExperimentSpec | None = None) -> ModelArtifact:
    """Write a TAO model as ONNX, numerically equal to Keras; the same source gives the same bytes.

    `output` is the file to write, or an existing folder, where it becomes `<source's stem>.onnx`; nothing
    appears there unless all went well. An `.onnx` source is accepted where it lies and nothing is written.
    With `spec`, class count and input size must agree. Raises InputError, and ToolError for a `.tlt` or
    `.etlt`, which only NVIDIA's container opens.
    """
    if not source.is_file():
        raise InputError(str(source), "does not exist")
    if source.suffix.lower() in (".tlt", ".etlt"):
        refuse_encrypted(source, spec=spec)
    if source.suffix.lower() == ".onnx":
        return accept_onnx(source, spec=spec)
    if not is_hdf5(source):
        raise InputError(
            str(source),
            "is neither a Keras HDF5 file nor an ONNX file",
            hint="give the .hdf5 below <results>/weights, or an .onnx exported by TAO",
        )
    keras_model = read_keras_hdf5(source)
    model = build_onnx(keras_model)
    content = model.SerializeToString(deterministic=True)  # once: it takes most of the time a large model takes
    try:
        onnx.checker.check_model(content)
    except onnx.checker.ValidationError as error:
        raise InputError(str(source), "gives no valid ONNX graph", evidence=str(error).strip()[:300]) from error
    signature = signature_of(model, subject=str(source))
    if spec is not None:
        check_against_spec(signature, spec, subject=str(source))
    target = output / f"{source.stem}.onnx" if output.is_dir() else output
    write_atomically(target, content)
    logger.info("exported %s to %s: %d nodes", source.name, target, len(model.graph.node))
    return ModelArtifact(
        format="onnx",
        path=target,
        sha256=sha256_of(target),
        precision="fp32",
        signature=signature,
        source_sha256=keras_model.sha256,
    )
