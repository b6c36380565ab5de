"""float16 weights and activations, by onnxruntime's own converter (MIT, in its wheel; onnxconverter-common's heir).

The converter moves a value beyond float16 to its largest number and says nothing, so what does not fit is looked
for first. A CPU runs most float16 operators in float32: an overflow on the GPU would not show there, which is why
it is looked for in the float32 model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from tao2serve.errors import InputError
from tao2serve.export.inference import onnxruntime
from tao2serve.export.precision.nodes import constants, copy_of, put_in_order

__all__ = ["LARGEST", "overflowing", "to_half"]

LARGEST: Final = float(np.finfo(np.float16).max)


def to_half(model: ModelProto, *, subject: str) -> ModelProto:
    """Return the model in float16 with float32 inputs and outputs of the same names, shapes and order.

    Weights must be in the model. Raises InputError for a weight that float16 cannot hold.
    """
    _check_weights(model, subject)
    onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        half: ModelProto = convert_float_to_float16(copy_of(model), keep_io_types=True)
    except Exception as error:  # shape inference and the converter share no class of errors
        raise InputError(subject, "cannot be converted to float16", evidence=str(error).strip()[:300]) from error
    put_in_order(half.graph, subject=subject)
    return half


def overflowing(amax: Mapping[str, float]) -> tuple[str, ...]:
    """Say for each tensor that float16 cannot hold how large it gets, the largest first."""
    beyond = sorted(((value, name) for name, value in amax.items() if not value <= LARGEST), reverse=True)
    return tuple(f"{name} reaches {value:.4g}, float16 ends at {LARGEST:g}" for value, name in beyond)


def _check_weights(model: ModelProto, subject: str) -> None:
    # The largest float32 as a limit means "no limit", which the largest float16 says as well.
    limits = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input[1:]}
    amax = {
        name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        for name, tensor in constants(model.graph).items()
        if tensor.data_type == TensorProto.FLOAT and name not in limits
    }
    beyond = overflowing(amax)
    if beyond:
        raise InputError(
            subject,
            "has weights that float16 cannot hold",
            evidence="; ".join(beyond[:3]),
            hint="serve it in fp32 or int8",
        )
