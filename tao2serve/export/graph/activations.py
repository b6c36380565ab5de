"""Activation functions, whether a layer of their own or the tail of a convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tao2serve.export.graph.fragment import Fragment, Value, constant, node
from tao2serve.tao.keras import KerasLayer

__all__ = ["activation", "clipped_relu"]


def activation(layer: KerasLayer, source: Value, name: str) -> Fragment:
    """Write the activation `name`; `linear` writes nothing."""
    writer = _WRITERS.get(name)
    if writer is None:
        layer.fail(f"has an unknown activation {name[:60]!r}", evidence=f"known: {', '.join(sorted(_WRITERS))}")
    return writer(layer, source)


def clipped_relu(layer: KerasLayer, source: Value, limit: float | None) -> Fragment:
    """max(x, 0), and not above `limit` if there is one."""
    if limit is None:
        return _relu(layer, source)
    if limit <= 0:
        layer.fail("has a limit that is not positive", evidence=f"max_value {limit}")
    low = constant(layer, "clip_min", np.float32(0))
    high = constant(layer, "clip_max", np.float32(limit))
    return node(
        layer,
        "Clip",
        (source.name, low.name, high.name),
        # Keras 2.2.4 has a fast path for 6; any other limit is a Relu and a clip_by_value.
        "Relu6" if limit == 6 else "clip_by_value",
        source.shape,
        constants=(low, high),
    )


def _relu(layer: KerasLayer, source: Value) -> Fragment:
    return node(layer, "Relu", (source.name,), "Relu", source.shape)


def _relu6(layer: KerasLayer, source: Value) -> Fragment:
    return clipped_relu(layer, source, 6.0)


def _sigmoid(layer: KerasLayer, source: Value) -> Fragment:
    return node(layer, "Sigmoid", (source.name,), "Sigmoid", source.shape)


def _tanh(layer: KerasLayer, source: Value) -> Fragment:
    return node(layer, "Tanh", (source.name,), "Tanh", source.shape)


def _swish(layer: KerasLayer, source: Value) -> Fragment:
    gate = _sigmoid(layer, source)
    return gate.then(node(layer, "Mul", (source.name, gate.result.name), "mul", source.shape))


def _linear(layer: KerasLayer, source: Value) -> Fragment:
    return Fragment(result=source)


_WRITERS: Mapping[str, Callable[[KerasLayer, Value], Fragment]] = {
    "linear": _linear,
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": _sigmoid,
    "swish": _swish,
    "tanh": _tanh,
}
