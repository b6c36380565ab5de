"""Where Q/DQ pairs go, by NVIDIA's rules for explicit quantization.

The input of a convolution is quantized, its output is not: what follows it (Relu, Clip, the addition of a residual)
joins it in TensorRT only while nothing is in between. Of an addition's inputs one convolution's result stays as it
is, so that the addition joins that convolution; every other input is quantized, without which TensorRT has to give
the sum in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from tao2serve.export.precision.nodes import constants, is_default_domain, uses

__all__ = ["Placement", "place", "spread"]

# What these give has the range of what they take: they move values or drop some.
_SAME_RANGE = frozenset(
    {"Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Convolutions that can run in int8, with the tensor each takes, and residuals to quantize beside them."""

    convolutions: Mapping[str, str]  # name of the result → name of the input
    residuals: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that needs a range, once, in graph order."""
        return tuple(dict.fromkeys((*self.convolutions.values(), *self.residuals)))


def place(graph: GraphProto) -> Placement:
    """Choose the tensors to quantize in a graph whose batch norm is folded."""
    known = constants(graph)
    convolutions = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Conv" and is_default_domain(node) and _has_float_kernel(node, known)
    }
    chosen = set(convolutions.values())
    residuals: dict[str, None] = {}
    counts = uses(graph)
    for node in graph.node:
        if node.op_type != "Add" or not is_default_domain(node) or any(name in known for name in node.input):
            continue
        joined = next((name for name in node.input if name in convolutions and counts[name] == 1), None)
        residuals.update((name, None) for name in node.input if name != joined and name not in chosen)
    return Placement(convolutions=convolutions, residuals=tuple(residuals))


def _has_float_kernel(node: NodeProto, known: Mapping[str, TensorProto]) -> bool:
    kernel = known.get(node.input[1])
    return kernel is not None and kernel.data_type == TensorProto.FLOAT and len(kernel.dims) > 2


def spread(graph: GraphProto, amax: Mapping[str, float]) -> dict[str, float]:
    """Return the ranges, with those of tensors that have none but hold the values of tensors that have one.

    The nodes must be in order.
    """
    known = constants(graph)
    found = dict(amax)
    for node in graph.node:
        if not is_default_domain(node) or not node.output or node.output[0] in found:
            continue
        sources = [found.get(name) for name in node.input[: None if node.op_type == "Concat" else 1]]
        ranges = [value for value in sources if value is not None]
        keeps = node.op_type in _SAME_RANGE or (node.op_type == "Pad" and _pads_zeros(node, known))
        if ranges and len(ranges) == len(sources) and (keeps or node.op_type == "Concat"):
            found[node.output[0]] = max(ranges)
    return found


def _pads_zeros(node: NodeProto, known: Mapping[str, TensorProto]) -> bool:
    """Whether a Pad adds nothing but zeros, or values that are there already."""
    mode = next((item.s for item in node.attribute if item.name == "mode"), b"constant")
    if mode != b"constant":
        return True
    if len(node.input) > 2 and node.input[2]:
        return node.input[2] in known and not numpy_helper.to_array(known[node.input[2]]).any()
    return not any(item.f for item in node.attribute if item.name == "value")
