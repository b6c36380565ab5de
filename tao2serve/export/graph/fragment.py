"""The piece of an ONNX graph that one Keras layer becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from tao2serve.export.shapes import MAX_ELEMENTS
from tao2serve.tao.keras import KerasLayer

__all__ = ["Constant", "Fragment", "Value", "check_size", "constant", "node", "only", "padding_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor on its way through the graph; `shape` leaves out N."""

    name: str
    shape: tuple[int, ...]

    def image_shape(self, layer: KerasLayer) -> tuple[int, int, int]:
        """Return (C, H, W), or raise InputError about `layer`, which needs it."""
        if len(self.shape) != 3:
            layer.fail("needs an input of (channels, height, width)", evidence=f"it gets {self.shape}")
        return self.shape[0], self.shape[1], self.shape[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A named array of the graph, not yet copied: most are views of the weights that were read."""

    name: str
    values: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """Nodes and constants of one layer, every tensor they make (in order), and the one that is its result."""

    nodes: tuple[NodeProto, ...] = ()
    constants: tuple[Constant, ...] = ()
    values: tuple[Value, ...] = field(default=())
    result: Value

    def then(self, other: Fragment) -> Fragment:
        """Put `other`, which takes this result, behind this one."""
        return Fragment(
            nodes=self.nodes + other.nodes,
            constants=self.constants + other.constants,
            values=self.values + other.values,
            result=other.result,
        )


def node(
    layer: KerasLayer,
    op_type: str,
    inputs: tuple[str, ...],
    tensorflow_op: str,
    shape: tuple[int, ...],
    *,
    constants: tuple[Constant, ...] = (),
    attributes: Mapping[str, Any] | None = None,
) -> Fragment:
    """One ONNX node whose output has TensorFlow's name, `<layer>/<op>:0`: calibration caches key on them."""
    check_size(layer, shape)
    name = f"{layer.name}/{tensorflow_op}"
    value = Value(name=f"{name}:0", shape=shape)
    made = helper.make_node(op_type, list(inputs), [value.name], name=name, **(attributes or {}))
    return Fragment(nodes=(made,), constants=constants, values=(value,), result=value)


def check_size(layer: KerasLayer, shape: tuple[int, ...]) -> None:
    """Raise InputError unless a tensor of this shape, N left out, can be one of a detector's."""
    if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
        layer.fail("makes an output of an impossible size", evidence=f"shape {shape}")


def constant(layer: KerasLayer, role: str, values: np.ndarray[Any, Any] | np.generic) -> Constant:
    """A constant named `<layer>/<role>:0`."""
    return Constant(name=f"{layer.name}/{role}:0", values=np.asarray(values))


def only(layer: KerasLayer, inputs: tuple[Value, ...]) -> Value:
    """Return the one input a layer must have."""
    if len(inputs) != 1:
        layer.fail("needs exactly one input", evidence=f"it has {len(inputs)}")
    return inputs[0]


def padding_of(layer: KerasLayer) -> str:
    """Return `same` or `valid`."""
    padding = layer.text("padding", "valid")
    if padding not in ("same", "valid"):
        layer.fail("has an unknown padding", evidence=padding[:100])
    return padding
