"""Fold batch norm into the convolution before it.

Two forms are known: a multiplication and an addition of constants per channel (what we and TAO's tf2onnx route
write) and the BatchNormalization node (keras2onnx). The result keeps the name of the last tensor folded: that is
the one whose range a calibration cache gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from tao2serve.export.precision.nodes import allow_stored, constants, copy_of, is_default_domain, put_properties, uses

__all__ = ["FOLDED_PROPERTY", "fold_batch_norm"]

FOLDED_PROPERTY: Final = "tao2serve.batch_norm"

_LONGEST: Final = 16  # steps behind one convolution; batch norm is two, a damaged graph may be a circle

_Array = npt.NDArray[np.float64]
_Constants = Mapping[str, TensorProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folding:
    """A convolution, the nodes that go into it, and its new weights."""

    convolution: NodeProto
    absorbed: tuple[NodeProto, ...]
    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fold_batch_norm(model: ModelProto) -> ModelProto:
    """Return a copy in which every Conv → batch norm is one Conv with bias; the same model gives the same bytes.

    Computed in float64, stored in float32. A batch norm without a convolution before it, or behind one whose
    result is used elsewhere too, stays. Weights must be in the model (no external data). The metadata gains
    `tao2serve.batch_norm = folded` if anything was folded.
    """
    folded = copy_of(model)
    graph = folded.graph
    known, followers = constants(graph), _only_followers(graph)
    foldings = [made for node in graph.node if (made := _folding(node, known, followers)) is not None]
    if not foldings:
        return folded
    absorbed = {node.output[0] for folding in foldings for node in folding.absorbed}
    for folding in foldings:
        result = folding.absorbed[-1].output[0]
        names = (f"{result}/folded_kernel", f"{result}/folded_bias")
        graph.initializer.extend(
            numpy_helper.from_array(array, name=name)
            for array, name in zip((folding.kernel, folding.bias), names, strict=True)
        )
        folding.convolution.input[:] = [folding.convolution.input[0], *names]
        folding.convolution.output[:] = [result]
    _keep(graph.node, [node for node in graph.node if node.op_type == "Conv" or node.output[0] not in absorbed])
    _sweep(graph)
    allow_stored(folded)
    put_properties(folded, {FOLDED_PROPERTY: "folded"})
    return folded


def _only_followers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that takes each tensor, for tensors that are taken exactly once and are no output."""
    counts = uses(graph)
    outputs = {item.name for item in graph.output}
    return {name: node for node in graph.node for name in node.input if counts[name] == 1 and name not in outputs}


def _folding(node: NodeProto, known: _Constants, followers: Mapping[str, NodeProto]) -> _Folding | None:
    """Return what a convolution can take in; None for anything else, and where there is nothing."""
    if node.op_type != "Conv" or not is_default_domain(node) or any(x not in known for x in node.input[1:] if x):
        return None
    kernel_tensor = known.get(node.input[1])
    if kernel_tensor is None or kernel_tensor.data_type != TensorProto.FLOAT or len(kernel_tensor.dims) < 3:
        return None
    kernel = _values(kernel_tensor)
    channels, rank = kernel.shape[0], kernel.ndim
    scale = np.ones(channels)
    shift = _values(known[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.zeros(channels)
    if shift.shape != (channels,):
        return None
    absorbed: list[NodeProto] = []
    end = node.output[0]
    with np.errstate(all="ignore"):  # what does not fit float32 is seen as infinite, and not folded
        while len(absorbed) < _LONGEST and (follower := followers.get(end)) is not None:
            step = _step(follower, end, known, channels, rank)
            if step is None:
                break
            scale, shift = scale * step[0], shift * step[0] + step[1]
            absorbed.append(follower)
            end = follower.output[0]
        new_kernel = (kernel * scale.reshape(-1, *(1,) * (rank - 1))).astype(np.float32)
        new_bias = shift.astype(np.float32)
    if not absorbed or not (np.isfinite(new_kernel).all() and np.isfinite(new_bias).all()):
        return None
    return _Folding(convolution=node, absorbed=tuple(absorbed), kernel=new_kernel, bias=new_bias)


def _step(node: NodeProto, source: str, known: _Constants, channels: int, rank: int) -> tuple[_Array, _Array] | None:
    """Return (scale, shift) per channel if the node is x · scale + shift with constants, else None."""
    if not is_default_domain(node) or len([name for name in node.output if name]) != 1:
        return None
    if node.op_type == "BatchNormalization" and node.input[0] == source:
        return _normalization(node, known, channels)
    others = [name for name in node.input if name != source]
    if node.op_type not in ("Mul", "Add") or len(others) != 1 or others[0] not in known:
        return None
    values = _per_channel(_values(known[others[0]]), channels, rank)
    if values is None:
        return None
    return (values, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), values)


def _normalization(node: NodeProto, known: _Constants, channels: int) -> tuple[_Array, _Array] | None:
    """BatchNormalization as used when a trained model runs; in training mode it is None."""
    settings = {item.name: item for item in node.attribute}
    training = "training_mode" in settings and settings["training_mode"].i
    if training or len(node.input) != 5 or any(name not in known for name in node.input[1:]):
        return None
    gamma, beta, mean, variance = (_values(known[name]) for name in node.input[1:])
    epsilon = settings["epsilon"].f if "epsilon" in settings else 1e-5
    if any(x.shape != (channels,) for x in (gamma, beta, mean, variance)) or (variance + epsilon <= 0).any():
        return None
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _per_channel(values: _Array, channels: int, rank: int) -> _Array | None:
    """Return (channels,) values if they differ at most by channel, the second axis of `rank`; else None."""
    shape = (1,) * (rank - values.ndim) + values.shape
    if values.ndim > rank or shape[1] not in (1, channels) or any(x != 1 for i, x in enumerate(shape) if i != 1):
        return None
    spread: _Array = np.broadcast_to(values.reshape(-1), (channels,)).copy()
    return spread


def _values(tensor: TensorProto) -> _Array:
    values: _Array = numpy_helper.to_array(tensor).astype(np.float64)
    return values


def _sweep(graph: GraphProto) -> None:
    """Remove constants nobody takes any more, and what the graph says of tensors that are gone."""
    taken = uses(graph)
    _keep(graph.node, [node for node in graph.node if node.op_type != "Constant" or taken[node.output[0]]])
    stored = {item.name for item in graph.initializer}
    _keep(graph.initializer, [item for item in graph.initializer if taken[item.name]])
    _keep(graph.input, [item for item in graph.input if item.name not in stored or taken[item.name]])
    made = {name for node in graph.node for name in node.output} | {item.name for item in graph.input}
    _keep(graph.value_info, [item for item in graph.value_info if item.name in made or taken[item.name]])


def _keep(field: Any, kept: list[Any]) -> None:
    """Leave only these in a repeated field."""
    del field[:]
    field.extend(kept)
