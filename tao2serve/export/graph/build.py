"""A Keras model → one ONNX model in memory: the layers' fragments, input, outputs, origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

import tao2serve
from tao2serve.errors import InputError
from tao2serve.export.graph.fragment import Fragment, Value
from tao2serve.export.graph.layers import write_layer
from tao2serve.tao.keras import KerasLayer, KerasModel

__all__ = ["BBOX_NAME", "COVERAGE_NAME", "INPUT_NAME", "build_onnx"]

INPUT_NAME = "input_1:0"
COVERAGE_NAME = "output_cov/Sigmoid:0"
BBOX_NAME = "output_bbox/BiasAdd:0"

# 13 is the first opset with Q/DQ per channel, which int8 needs, and every TensorRT since 8.0 parses it.
# IR 7 is the version of that time, so that an older onnxruntime (from 1.6) loads the file too.
_OPSET = 13
_IR_VERSION = 7


def build_onnx(model: KerasModel) -> ModelProto:
    """Return the ONNX model: `input_1:0` → `output_cov/Sigmoid:0`, `output_bbox/BiasAdd:0`, N open.

    The same source gives the same bytes. Raises InputError naming the layer that cannot be written.
    """
    # First of all, because what else is unusual about a model that is no detector is beside the point.
    heads = model.coverage, model.bbox
    entrances = [layer.name for layer in model.layers if layer.class_name == "InputLayer"]
    if len(entrances) != 1:
        raise InputError(
            str(model.path),
            f"has {len(entrances)} inputs, a DetectNet_v2 model has one",
            evidence=f"inputs: {', '.join(entrances)[:300]}",
        )
    made: dict[str, Value] = {}
    fragments: list[Fragment] = []
    for layer in model.layers:
        if layer.class_name == "InputLayer":
            source = made[layer.name] = _input_value(layer)
            continue
        fragment = write_layer(layer, tuple(made[name] for name in layer.inbound))
        fragments.append(fragment)
        made[layer.name] = fragment.result
    coverage, bbox = (made[name] for name in heads)
    _check_heads(model, coverage, bbox)
    names = {source.name: INPUT_NAME, coverage.name: COVERAGE_NAME, bbox.name: BBOX_NAME}
    return _assemble(model, _needed(fragments, coverage, bbox), source, (coverage, bbox), names)


def _input_value(layer: KerasLayer) -> Value:
    shape = layer.integers("batch_input_shape")
    sizes = tuple(x for x in shape[1:] if x is not None)
    if len(shape) != 4 or len(sizes) != 3 or not all(1 <= x <= 1 << 14 for x in sizes):
        layer.fail("is not an input of (channels, height, width)", evidence=f"batch_input_shape {list(shape)}")
    if sizes[0] not in (1, 3):
        layer.fail(
            "has neither 1 nor 3 channels",
            evidence=f"batch_input_shape {list(shape)}",
            hint="every TAO detector takes (channels, height, width)",
        )
    return Value(name=f"{layer.name}:0", shape=sizes)


def _check_heads(model: KerasModel, coverage: Value, bbox: Value) -> None:
    if not coverage.name.endswith("/Sigmoid:0"):
        raise InputError(
            f"{model.path}: layer {model.coverage}",
            "does not end in a sigmoid, so it is no coverage",
            evidence=f"its result is {coverage.name[:200]}",
        )
    fits = (
        len(coverage.shape) == len(bbox.shape) == 3
        and bbox.shape[0] == 4 * coverage.shape[0]
        and bbox.shape[1:] == coverage.shape[1:]
        and coverage.name != bbox.name
    )
    if not fits:
        raise InputError(
            str(model.path),
            "has outputs that do not belong together",
            evidence=f"{model.coverage} {coverage.shape}, {model.bbox} {bbox.shape}",
            hint="bbox must have four channels for each of coverage, on the same grid",
        )


def _needed(fragments: Sequence[Fragment], *results: Value) -> list[Fragment]:
    """Leave out layers no output depends on, such as further heads."""
    wanted = {value.name for value in results}
    kept: list[Fragment] = []
    for fragment in reversed(fragments):
        if any(value.name in wanted for value in fragment.values):
            wanted.update(name for made in fragment.nodes for name in made.input)
            kept.append(fragment)
    return kept[::-1]


def _assemble(
    model: KerasModel,
    fragments: Sequence[Fragment],
    source: Value,
    results: tuple[Value, Value],
    names: dict[str, str],
) -> ModelProto:
    def info(value: Value) -> onnx.ValueInfoProto:
        name = names.get(value.name, value.name)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *value.shape])

    nodes = [made for fragment in fragments for made in fragment.nodes]
    for made in nodes:
        made.input[:] = [names.get(name, name) for name in made.input]
        made.output[:] = [names.get(name, name) for name in made.output]
    ends = {value.name for value in results}
    graph = helper.make_graph(
        nodes,
        model.name or "detectnet_v2",
        [info(source)],
        [info(value) for value in results],
        value_info=[info(x) for fragment in fragments for x in fragment.values if x.name not in ends],
    )
    built = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tao2serve",
        producer_version=tao2serve.__version__,
    )
    helper.set_model_props(
        built,
        {
            "tao2serve.version": tao2serve.__version__,
            "tao2serve.source_sha256": model.sha256,
            "tao2serve.source_model": model.name,
            "tao2serve.keras_version": model.keras_version,
        },
    )
    # Last, and one by one: given to make_graph all weights would be copied twice more.
    for item in (constant for fragment in fragments for constant in fragment.constants):
        built.graph.initializer.append(numpy_helper.from_array(np.array(item.values, order="C"), name=item.name))
    return built
