"""Graphs that take pixels and give boxes, made from a usual one by the operators that the names promise."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tao2serve.runtime import DetectorParams
from tao2serve.runtime.candidates import cell_centres
from tao2serve.values import BOXES_OUTPUT, PIXELS_INPUT

INPUT, BBOX = "input_1:0", "output_bbox/BiasAdd:0"


def lean(model: ModelProto, params: DetectorParams) -> ModelProto:
    """Scale and transpose at the start (three channels), decode at the end, each in float32."""
    made = ModelProto.FromString(model.SerializeToString())
    graph = made.graph
    (bbox,) = (item for item in graph.output if item.name == BBOX)
    channels, rows, columns = (dim.dim_value for dim in bbox.type.tensor_type.shape.dim[1:])
    classes = channels // 4
    x, y = cell_centres(params, rows=rows, columns=columns)
    centre = np.stack([np.broadcast_to(axis, (rows, columns)) for axis in (x, y[:, None], x, y[:, None])])
    sign = np.tile(np.array([-1, -1, 1, 1], np.float32), classes).reshape(channels, 1, 1)
    # Of the grid's full size: a factor a channel would be fused into the convolution by onnxruntime, and round anew.
    scale = np.ascontiguousarray(np.broadcast_to(sign * np.float32(params.bbox_scale), (channels, rows, columns)))
    constants = {
        "lean_255": np.float32(255),
        "lean_scale": scale,
        "lean_centre": np.tile(centre.astype(np.float32), (classes, 1, 1)),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    before = [
        helper.make_node("Cast", [PIXELS_INPUT], ["lean_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["lean_float", "lean_255"], ["lean_scaled"]),
        helper.make_node("Transpose", ["lean_scaled"], [INPUT], perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("Mul", [BBOX, "lean_scale"], ["lean_sides"]),
        helper.make_node("Add", ["lean_centre", "lean_sides"], [BOXES_OUTPUT]),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    size = ["N", params.height, params.width, 3]
    graph.input.append(helper.make_tensor_value_info(PIXELS_INPUT, TensorProto.UINT8, size))
    bbox.name = BOXES_OUTPUT
    onnx.checker.check_model(made, full_check=True)
    return made
