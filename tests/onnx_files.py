"""ONNX files as other exporters write them, made from ours."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

NAMES = {"input_1:0": "input_1", "output_cov/Sigmoid:0": "output_cov", "output_bbox/BiasAdd:0": "output_bbox"}


def like_keras2onnx(ours: ModelProto) -> ModelProto:
    """Rewrite a model of ours as keras2onnx 1.7.0 would have written it, which is seen with the real one.

    `same` of Conv and of pools is TensorFlow's, `valid` is said by auto_pad, and a ZeroPadding2D that is not
    the first node is merged into the convolution behind it.
    """
    model = ModelProto.FromString(ours.SerializeToString())
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "keras2onnx", "1.7.0"
    graph = model.graph
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info, *graph.output)
    }
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    amounts = {item.name: numpy_helper.to_array(item) for item in graph.initializer if "Pad" in item.name}
    for node in graph.node:
        if node.op_type not in ("Conv", "MaxPool", "AveragePool"):
            continue
        before = pads.get(node.input[0])
        if node.op_type == "Conv" and before is None:
            _repad_conv(node, shapes[node.input[0]][2:])
        elif node.op_type == "Conv" and before.input[0] != "input_1:0":
            top, left, bottom, right = (int(amounts[before.input[1]][index]) for index in (2, 3, 6, 7))
            _set(node, auto_pad="NOTSET", pads=[top, left, bottom, right])
            _bypass(graph, node, before)
        elif node.op_type != "Conv":
            _set(node, auto_pad="SAME_UPPER" if before is not None else "VALID")
            if before is not None:
                _bypass(graph, node, before)
    for item in (*graph.input, *graph.output):
        item.name = NAMES[item.name]
    for node in graph.node:
        node.input[:] = [NAMES.get(name, name) for name in node.input]
        node.output[:] = [NAMES.get(name, name) for name in node.output]
    outputs = [graph.output[1], graph.output[0]]
    copies = [onnx.ValueInfoProto.FromString(item.SerializeToString()) for item in outputs]
    del graph.output[:], graph.value_info[:]
    graph.output.extend(copies)
    return model


def repad(model: ModelProto, wanted: dict[str, list[int]]) -> ModelProto:
    """Give the named nodes other pads."""
    changed = ModelProto.FromString(model.SerializeToString())
    for node in changed.graph.node:
        if node.name in wanted:
            _set(node, auto_pad="NOTSET", pads=wanted[node.name])
    return changed


def _repad_conv(node: NodeProto, size: list[int]) -> None:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if not any(attributes["pads"]):
        _set(node, auto_pad="VALID")
        return
    before, after = [], []
    for length, kernel, stride, dilation in zip(
        size, attributes["kernel_shape"], attributes["strides"], attributes["dilations"], strict=True
    ):
        total = max(stride * ((length - 1) // stride) + 1 + (kernel - 1) * dilation - length, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    _set(node, auto_pad="NOTSET", pads=[*before, *after])


def _set(node: NodeProto, *, auto_pad: str, pads: list[int] | None = None) -> None:
    kept = [item for item in node.attribute if item.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("auto_pad", auto_pad)])
    if pads is not None:
        node.attribute.append(helper.make_attribute("pads", pads))


def _bypass(graph: onnx.GraphProto, node: NodeProto, pad: NodeProto) -> None:
    node.input[0] = pad.input[0]
    graph.node.remove(pad)
