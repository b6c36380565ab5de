"""Ranges from a Keras model trained for quantization: what its QDQ layers learned, by the tensor they look at.

TAO's exporter writes a QDQ layer's `scaling_factor` as the amax of the tensor before it, without any change
(nvidia_tao_tf1/core/export/_quantized.py); the step of TensorFlow's quantize_and_dequantize over [-f, f] is
f / 127, the same as TensorRT's.
"""

from __future__ import annotations

from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.graph.build import BBOX_NAME, COVERAGE_NAME, INPUT_NAME
from tao2serve.export.graph.fragment import Value
from tao2serve.export.graph.layers import write_layer
from tao2serve.export.precision.nodes import tensor_names
from tao2serve.export.precision.ranges import Ranges, ranges_of
from tao2serve.tao.keras import KerasLayer, KerasModel

__all__ = ["qat_ranges"]


def qat_ranges(keras: KerasModel, model: ModelProto) -> Ranges:
    """Return the ranges a model was trained with; `model` is what `export_onnx` made of `keras`, not folded.

    A quantized convolution that keeps a range of its input itself counts where no QDQ layer precedes it; of two
    for one tensor the larger counts, as in TAO. Raises InputError for a model without QDQ layers, and for one
    whose QDQ layers follow each other, which TAO refuses as well.
    """
    layers = {layer.name: layer for layer in keras.layers}
    tensors, exported = _tensors(keras), tensor_names(model.graph)
    found: dict[str, float] = {}
    for layer in keras.layers:
        factor = _factor(layer, layers)
        if factor is None:
            continue
        tensor = tensors[layer.inbound[0]]
        if tensor in exported:  # layers no output depends on are not
            found[tensor] = max(factor, found.get(tensor, 0.0))
    if not found:
        raise InputError(
            str(keras.path),
            "was not trained for quantization: it carries no ranges",
            evidence="it has no QDQ layer",
            hint="give calibration images or a calibration cache",
        )
    return ranges_of(found, model, subject=str(keras.path), source="QAT scales", method="training")


def _factor(layer: KerasLayer, layers: dict[str, KerasLayer]) -> float | None:
    """Return the range a layer carries of its input, or None."""
    before = layers[layer.inbound[0]] if layer.inbound else None
    if before is None:
        return None
    follows_qdq = before.class_name == "QDQ"
    if layer.class_name == "QDQ":
        if follows_qdq:
            layer.fail("follows another QDQ layer, which TAO does not support", evidence=f"it follows {before.name}")
        return _number(layer, 0)
    if not layer.class_name.startswith("Quantized") or follows_qdq or not layer.flag("quantize", default=False):
        return None
    return _number(layer, 1 + layer.flag("use_bias", default=True))


def _number(layer: KerasLayer, index: int) -> float:
    """Return a scalar weight; the HDF5 reader may give it as (1,)."""
    weight = layer.weights[index] if index < len(layer.weights) else None
    if weight is None or weight.values.size != 1:
        layer.fail("has no scaling_factor", evidence=f"weights: {[(x.name, x.values.shape) for x in layer.weights]}")
    return float(weight.values.reshape(()))


def _tensors(keras: KerasModel) -> dict[str, str]:
    """Return for each layer the tensor of our graph that holds its result; a QDQ has that of the layer before it."""
    made: dict[str, Value] = {}
    for layer in keras.layers:
        if layer.class_name == "InputLayer":
            shape = tuple(size or 1 for size in layer.integers("batch_input_shape")[1:])
            made[layer.name] = Value(name=INPUT_NAME, shape=shape)
        else:
            made[layer.name] = write_layer(layer, tuple(made[name] for name in layer.inbound)).result
    heads = {made[keras.coverage].name: COVERAGE_NAME, made[keras.bbox].name: BBOX_NAME}
    return {name: heads.get(value.name, value.name) for name, value in made.items()}
