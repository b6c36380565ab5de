"""Walk an ONNX model's message tree: graphs hide in branches, loops and functions, tensors in attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["all_nodes", "all_tensors", "broken_text"]

_TENSOR = TensorProto.DESCRIPTOR.name
_SMALL_FIELDS = ("name", "doc_string", "external_data")  # of a tensor; to look at the others may copy the weights


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yield every node, in no particular order."""
    return (message for message in _messages(model) if message.DESCRIPTOR.name == NodeProto.DESCRIPTOR.name)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: initializers, sparse ones, constants in attributes; in no particular order."""
    return (message for message in _messages(model) if message.DESCRIPTOR.name == _TENSOR)


def broken_text(model: ModelProto) -> str:
    """Return where a text is not UTF-8, "" if all are.

    protobuf parses such a model, and gives bytes where every reader expects a str.
    """
    for message in _messages(model):
        for field, value in _fields(message):
            broken = [x for x in _items(value) if isinstance(x, bytes)] if field.type == field.TYPE_STRING else []
            if broken:
                return f"{message.DESCRIPTOR.name}.{field.name}: {broken[0]!r}"[:200]
    return ""


def _messages(model: ModelProto) -> Iterator[Any]:
    """Yield all messages; nothing recurses."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in _fields(message):
            if field.message_type is not None:
                waiting.extend(_items(value))


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """Return the fields that are set, with their values."""
    if message.DESCRIPTOR.name == _TENSOR:
        return [(message.DESCRIPTOR.fields_by_name[name], getattr(message, name)) for name in _SMALL_FIELDS]
    fields: list[tuple[Any, Any]] = message.ListFields()
    return fields


def _items(value: Any) -> Any:
    """Return the values of a field, one or many."""
    return [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value
