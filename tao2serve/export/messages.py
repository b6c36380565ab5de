"""Walk an ONNX model's message tree: graphs hide in branches, loops and functions, tensors in attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["all_nodes", "all_tensors"]


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yield every node, in no particular order."""
    return _messages(model, NodeProto.DESCRIPTOR.name)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: initializers, sparse ones, constants in attributes; in no particular order."""
    return _messages(model, TensorProto.DESCRIPTOR.name)


def _messages(model: ModelProto, kind: str) -> Iterator[Any]:
    """Yield the messages of one kind. Nothing recurses, and tensors, which are large, are not gone into."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        name = message.DESCRIPTOR.name
        if name == kind:
            yield message
        if name == TensorProto.DESCRIPTOR.name:
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)
