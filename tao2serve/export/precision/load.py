"""An ONNX artifact in memory, its weights inside."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import ModelProto, numpy_helper

from tao2serve.errors import InputError
from tao2serve.export.precision.nodes import constants
from tao2serve.export.signature import load_onnx
from tao2serve.values import ModelArtifact

__all__ = ["load_model"]

_MOST_BYTES: Final = 1 << 30  # of external weights; ONNX itself ends at 2 GB, a DetectNet_v2 has some 200 MB at most


def load_model(artifact: ModelArtifact) -> ModelProto:
    """Read an ONNX artifact; external data, which `accept_onnx` has checked, is taken in.

    Raises InputError for another format, a damaged file, and weights that are missing or too large for one file.
    """
    if artifact.format != "onnx":
        raise InputError(str(artifact.path), "is not an ONNX file", evidence=f"format {artifact.format}")
    model = load_onnx(artifact.path)
    size = sum(path.stat().st_size for path in artifact.companions if path.is_file())
    if size > _MOST_BYTES:
        raise InputError(str(artifact.path), "has too many weights", evidence=f"{size:,} bytes beside the file")
    if artifact.companions:
        try:
            onnx.load_external_data_for_model(model, str(artifact.path.resolve().parent))
        except Exception as error:  # ValidationError, OSError and others
            raise InputError(
                str(artifact.path), "cannot be read with its weights", evidence=str(error).strip()[:300]
            ) from error
    for name, tensor in constants(model.graph).items():
        try:
            numpy_helper.to_array(tensor)
        except Exception as error:  # ValueError, TypeError, KeyError … by what is wrong with it
            raise InputError(
                str(artifact.path), "has a weight that is damaged", evidence=f"{name[:100]}: {error}"[:300]
            ) from error
    return model
