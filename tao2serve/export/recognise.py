"""Which TAO template an ONNX file holds, told by the layer names that TAO's exporter and ours keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto

from tao2serve.export.lean import is_added
from tao2serve.tao.describe import ModelDescription, describe
from tao2serve.tao.keras import KerasLayer, KerasModel

__all__ = ["description_of"]

# What the operations of ONNX were as layers of Keras; what is not listed tells nothing.
_CLASSES = {
    "Add": "Add",
    "AveragePool": "AveragePooling2D",
    "BatchNormalization": "BatchNormalization",
    "Concat": "Concatenate",
    "LeakyRelu": "LeakyReLU",
    "MaxPool": "MaxPooling2D",
}
_PAIR = ("QuantizeLinear", "DequantizeLinear")


def description_of(model: ModelProto, path: Path) -> ModelDescription:
    """Tell template, depth and pruning of a parsed ONNX model; QAT cannot be told and reads False.

    A file whose names were lost is told by its operations alone.
    """
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for node in model.graph.node:  # the kernels of int8 reach their convolutions through these
        if node.op_type in _PAIR and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    layers: dict[str, KerasLayer] = {}
    for node in model.graph.node:
        layer = _layer(node, shapes, path)
        if layer is not None:
            layers[layer.name] = layer
    keras = KerasModel(
        path=path, sha256="", name="", keras_version="", layers=tuple(layers.values()), inputs=(), outputs=()
    )
    return describe(keras)


def parameter_count(model: ModelProto) -> int:
    """Count the weights stored in the graph."""
    stored = (item for item in model.graph.initializer if not is_added(item.name))
    return sum(int(np.prod(tuple(item.dims), dtype=object)) for item in stored)


def _layer(node: NodeProto, shapes: dict[str, tuple[int, ...]], path: Path) -> KerasLayer | None:
    """Return the layer that a node came from, as far as its name, class and filters go."""
    if node.op_type in _PAIR or is_added(node.name):
        return None  # named after what they quantize; no layer of TAO's
    config: dict[str, object] = {}
    is_convolution = node.op_type == "Conv" and len(node.input) > 1
    # With batch norm folded, a convolution's result has the norm's name, and its node keeps its own; keras2onnx
    # numbers the results, and names the nodes after the layers.
    named = node.name if is_convolution and node.name else node.output[0] if node.output else node.name
    is_norm = "/batchnorm/" in named
    name = named.partition("/batchnorm/")[0] if is_norm else named.rpartition("/")[0] or named
    if is_convolution:
        kernel = shapes.get(node.input[1], ())
        group = next((item.i for item in node.attribute if item.name == "group"), 1)
        class_name = "DepthwiseConv2D" if group > 1 else "Conv2D"
        config = {"filters": kernel[0] if kernel else 1}
    elif is_norm:
        class_name = "BatchNormalization"
    elif node.op_type in _CLASSES:
        class_name = _CLASSES[node.op_type]
    elif node.op_type == "Mul" and not any(item in shapes for item in node.input):
        class_name = "Multiply"
    else:
        return None
    return KerasLayer(name=name, class_name=class_name, config=config, inbound=(), weights=(), path=path)
