"""The sizes of the tensors in an ONNX graph, as ONNX itself infers them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from tao2serve.errors import InputError

__all__ = ["MAX_ELEMENTS", "check_shapes", "tensor_shapes"]

# Of one tensor for one image, 2 GiB in float32: a detector's largest, of a 4K picture, has a quarter of that.
# More is a damaged file, or one made to fill the memory.
MAX_ELEMENTS = 1 << 29

_SMALL = 64  # elements: shapes, axes and pads, whose values the inference reads


def check_shapes(path: Path, model: ModelProto) -> None:
    """Raise InputError for a model that, by ONNX's own inference, makes a tensor no detector makes."""
    for name, shape in tensor_shapes(model).items():
        if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
            raise InputError(
                str(path), "makes a tensor of an impossible size", evidence=f"{name[:100]} is {list(shape)}"
            )


def tensor_shapes(model: ModelProto) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each tensor of the main graph that has one; 0 stands for an open size, as of N.

    The weights are left out, so the cost is that of the graph alone. Where ONNX finds the graph at fault,
    only what the file itself says is returned.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    except Exception:  # its own InferenceError, or a RuntimeError or ValueError from the C++ side
        graph = model.graph
    return {
        item.name: tuple(max(dim.dim_value, 0) for dim in item.type.tensor_type.shape.dim)
        for item in (*graph.input, *graph.value_info, *graph.output)
        if item.type.tensor_type.HasField("shape")
    }


def _without_weights(model: ModelProto) -> ModelProto:
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        small = sum(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL
        bare.graph.initializer.append(
            tensor if small else TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        )
    return bare
