"""One function for each Keras layer class: the layer and its inputs in, a piece of ONNX graph out.

Tensor names are those TensorFlow 1.15 gives (docs/tao.md). BatchNormalization stays a
multiplication and an addition of its own, as in TAO's tf2onnx route: int8 scales exist for its output, and
TensorRT and onnxruntime fold it into the convolution by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tao2serve.errors import InputError
from tao2serve.export.graph.activations import activation, clipped_relu
from tao2serve.export.graph.convolutions import convolution, depthwise
from tao2serve.export.graph.fragment import Fragment, Value, constant, node, only, padding_of
from tao2serve.export.graph.geometry import Pads, pool_pads, window_size
from tao2serve.tao.keras import IDENTITY_CLASSES, KerasLayer

__all__ = ["LAYER_WRITERS", "write_layer"]

_OTHER_HINT = "export it with TAO itself (detectnet_v2 export --onnx_route tf2onnx) and give the .onnx"
_LAMBDA_HINT = f"it holds Python code, which is never run from a model file; {_OTHER_HINT}"

LayerWriter = Callable[[KerasLayer, tuple[Value, ...]], Fragment]


def write_layer(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """Write one layer. Raises InputError naming it if it is not supported or its parts do not fit."""
    writer = LAYER_WRITERS.get(layer.class_name)
    if writer is None:
        raise InputError(
            f"{layer.path}: layer {layer.name}",
            f"is a {layer.class_name}, which cannot be exported",
            evidence=f"supported: {', '.join(sorted(LAYER_WRITERS))}",
            hint=_LAMBDA_HINT if layer.class_name == "Lambda" else _OTHER_HINT,
        )
    if not inputs:
        layer.fail("has no input")
    if layer.text("data_format", "channels_first") != "channels_first":
        layer.fail("is not channels_first", hint="every TAO detector is; this file has another origin")
    return writer(layer, inputs)


def batch_normalization(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """x·s + b with the statistics of training, in float64 until the last step."""
    source = only(layer, inputs)
    channels = source.shape[0]
    axis = layer.config.get("axis", 1)
    if axis not in (1, [1]):
        layer.fail("does not normalise the channel axis", evidence=f"axis {axis!r}"[:200])
    has_scale, has_center = layer.flag("scale", default=True), layer.flag("center", default=True)
    layer.expect_weights(2 + has_scale + has_center)
    arrays = [
        layer.weight(index, (channels,), f"weight {index}").astype(np.float64) for index in range(len(layer.weights))
    ]
    gamma = arrays.pop(0) if has_scale else np.ones(channels)
    beta = arrays.pop(0) if has_center else np.zeros(channels)
    mean, variance = arrays
    shifted = variance + (layer.number("epsilon", 1e-3) or 0.0)
    if (shifted <= 0).any():
        layer.fail("has a variance that is not positive", evidence=f"smallest: {shifted.min():g}")
    factor = gamma / np.sqrt(shifted)
    offset = beta - mean * factor
    per_channel = (1, channels, *(1 for _ in source.shape[1:]))
    scale = constant(layer, "batchnorm/mul", factor.astype(np.float32).reshape(per_channel))
    shift = constant(layer, "batchnorm/sub", offset.astype(np.float32).reshape(per_channel))
    scaled = node(layer, "Mul", (source.name, scale.name), "batchnorm/mul_1", source.shape, constants=(scale,))
    return scaled.then(
        node(
            layer,
            "Add",
            (scaled.result.name, shift.name),
            "batchnorm/add_1",
            source.shape,
            constants=(shift,),
        )
    )


def max_pooling(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    return _pool(layer, inputs, "MaxPool")


def average_pooling(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    return _pool(layer, inputs, "AveragePool")


def _pool(layer: KerasLayer, inputs: tuple[Value, ...], op_type: str) -> Fragment:
    """Pad with zeros first, then pool: the zeros count in the mean and may win the maximum, as in TAO."""
    source = only(layer, inputs)
    channels, height, width = source.image_shape(layer)
    pool = layer.pair("pool_size")
    strides = layer.pair("strides") if layer.config.get("strides") is not None else pool
    pads = pool_pads(padding_of(layer), pool)
    padded = _pad(layer, source, pads) if any(pads) else Fragment(result=source)
    return padded.then(
        node(
            layer,
            op_type,
            (padded.result.name,),
            "MaxPool" if op_type == "MaxPool" else "AvgPool",
            (channels, *window_size((height, width), pads, pool, strides)),
            attributes={"kernel_shape": list(pool), "strides": list(strides)},
        )
    )


def zero_padding(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    top, bottom, left, right = layer.padding_sides()
    return _pad(layer, only(layer, inputs), Pads(top, left, bottom, right))


def _pad(layer: KerasLayer, source: Value, pads: Pads) -> Fragment:
    channels, height, width = source.image_shape(layer)
    amounts = np.array([0, 0, pads.top, pads.left, 0, 0, pads.bottom, pads.right], dtype=np.int64)
    sides = constant(layer, "Pad/paddings", amounts)
    return node(
        layer,
        "Pad",
        (source.name, sides.name),
        "Pad",
        (channels, height + pads.top + pads.bottom, width + pads.left + pads.right),
        constants=(sides,),
        attributes={"mode": "constant"},
    )


def addition(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    return _fold(layer, inputs, "Add", "add")


def multiplication(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    return _fold(layer, inputs, "Mul", "mul")


def _fold(layer: KerasLayer, inputs: tuple[Value, ...], op_type: str, tensorflow_op: str) -> Fragment:
    """Combine from left to right; TensorFlow numbers the second and later results `add_1`, `add_2` …"""
    if len(inputs) < 2:
        layer.fail("needs at least two inputs", evidence=f"it has {len(inputs)}")
    made = Fragment(result=inputs[0])
    for index, other in enumerate(inputs[1:]):
        name = tensorflow_op if index == 0 else f"{tensorflow_op}_{index}"
        shape = _broadcast(layer, made.result.shape, other.shape)
        made = made.then(node(layer, op_type, (made.result.name, other.name), name, shape))
    return made


def _broadcast(layer: KerasLayer, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(left) == len(right) and all(a == b or 1 in (a, b) for a, b in zip(left, right, strict=True))
    if not fits:
        layer.fail("has inputs of different sizes", evidence=f"{left} and {right}")
    return tuple(max(a, b) for a, b in zip(left, right, strict=True))


def concatenation(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    axis = layer.config.get("axis", 1)
    if axis != 1 or isinstance(axis, bool):
        layer.fail("does not join along channels", evidence=f"axis {axis!r}"[:200])
    first = inputs[0].shape
    if len(inputs) < 2 or any(x.shape[1:] != first[1:] for x in inputs):
        layer.fail("has inputs of different sizes", evidence=str([x.shape for x in inputs])[:300])
    shape = (sum(x.shape[0] for x in inputs), *first[1:])
    return node(layer, "Concat", tuple(x.name for x in inputs), "concat", shape, attributes={"axis": 1})


def global_average_pooling(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    source = only(layer, inputs)
    channels = source.image_shape(layer)[0]
    kept = layer.flag("keepdims", default=False)
    return node(
        layer,
        "ReduceMean",
        (source.name,),
        "Mean",
        (channels, 1, 1) if kept else (channels,),
        attributes={"axes": [2, 3], "keepdims": int(kept)},
    )


def reshape(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """Reshape what is behind N; one open dimension is worked out here, so that only N stays open."""
    source = only(layer, inputs)
    target = [-1 if item is None else item for item in layer.integers("target_shape")]
    total = int(np.prod(source.shape, dtype=object))
    known = int(np.prod([item for item in target if item != -1], dtype=object))
    if target.count(-1) == 1 and known > 0 and total % known == 0:
        target[target.index(-1)] = total // known
    if not target or min(target) < 1 or int(np.prod(target, dtype=object)) != total:
        layer.fail("cannot take this shape", evidence=f"{source.shape} into {target}")
    sizes = constant(layer, "Reshape/shape", np.array([-1, *target], dtype=np.int64))
    return node(layer, "Reshape", (source.name, sizes.name), "Reshape", tuple(target), constants=(sizes,))


def activation_layer(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    return activation(layer, only(layer, inputs), layer.text("activation", "linear"))


def relu(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """ReLU with Keras's extras; the limit 6 comes from quantization-aware training and stays."""
    source = only(layer, inputs)
    if layer.number("threshold", 0.0):
        layer.fail("has a threshold, which no TAO template does", evidence=str(layer.config.get("threshold")))
    if layer.number("negative_slope", 0.0):
        layer.fail("has a slope, which no TAO template does", evidence=str(layer.config.get("negative_slope")))
    return clipped_relu(layer, source, layer.number("max_value", None))


def leaky_relu(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    source = only(layer, inputs)
    alpha = layer.number("alpha", 0.3)
    return node(layer, "LeakyRelu", (source.name,), "LeakyRelu", source.shape, attributes={"alpha": alpha})


def identity(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """Leave out what changes nothing when a trained model is used."""
    return Fragment(result=only(layer, inputs))


LAYER_WRITERS: Mapping[str, LayerWriter] = {
    "Activation": activation_layer,
    "Add": addition,
    "AveragePooling2D": average_pooling,
    "BatchNormalization": batch_normalization,
    "Concatenate": concatenation,
    "Conv2D": convolution,
    "DepthwiseConv2D": depthwise,
    "GlobalAveragePooling2D": global_average_pooling,
    "LeakyReLU": leaky_relu,
    "MaxPooling2D": max_pooling,
    "Multiply": multiplication,
    "QuantizedConv2D": convolution,
    "QuantizedDepthwiseConv2D": depthwise,
    "ReLU": relu,
    "Reshape": reshape,
    "ZeroPadding2D": zero_padding,
    **dict.fromkeys(IDENTITY_CLASSES, identity),
}
