"""Whether an ONNX file keeps to operators and versions that onnxruntime, and so Triton, can load."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.messages import all_nodes

__all__ = ["check_operators"]

_STANDARD = frozenset({"", "ai.onnx"})
_KNOWN = _STANDARD | {"com.microsoft"}  # onnxruntime's own, such as the fused ones its optimizer writes


# They can run for ever, inside onnxruntime, where no signal reaches: the file says how often.
_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})


def check_operators(path: Path, model: ModelProto) -> None:
    """Raise InputError for loops, operators of other domains, naming them, functions, and versions newer than known."""
    if model.ir_version > onnx.IR_VERSION:
        raise InputError(
            str(path),
            "is written for a newer ONNX than the one here",
            evidence=f"IR version {model.ir_version}; onnx {onnx.__version__} knows up to {onnx.IR_VERSION}",
            hint="update onnx and onnxruntime, or export the model for an older version",
        )
    foreign = sorted({f"{node.domain}::{node.op_type}"[:100] for node in all_nodes(model) if node.domain not in _KNOWN})
    if foreign:
        raise InputError(
            str(path),
            "uses operators that a plain Triton cannot load",
            evidence=", ".join(foreign)[:300],
            hint="export the model with standard ONNX operators only",
        )
    loops = sorted({node.op_type for node in all_nodes(model) if node.op_type in _LOOPS})
    if loops:
        raise InputError(str(path), "runs in a loop, which no detector does", evidence=", ".join(loops))
    if model.functions:
        raise InputError(
            str(path),
            "defines operators of its own, which no exporter of TAO does",
            evidence=", ".join(function.name for function in model.functions)[:300],
            hint="write them out: onnx.inliner.inline_local_functions",
        )
    _check_opset(path, model)


def _check_opset(path: Path, model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    versions = [item.version for item in model.opset_import if item.domain in _STANDARD]
    if len(versions) != 1:
        raise InputError(str(path), "does not say which ONNX operators it means", evidence=f"opsets {versions}")
    if versions[0] > newest:
        raise InputError(
            str(path),
            "uses newer ONNX operators than are known here",
            evidence=f"opset {versions[0]}; onnx {onnx.__version__} knows up to {newest}",
            hint="update onnx and onnxruntime, or export with a lower opset (TAO's own is 12 or older)",
        )
    if versions[0] < 1:
        raise InputError(str(path), "is of an opset that there never was", evidence=str(versions[0]))
