"""Questions to an ONNX graph, and small changes to one, that every step here needs."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from tao2serve.errors import InputError

__all__ = [
    "allow_stored",
    "constants",
    "copy_of",
    "is_default_domain",
    "producers",
    "properties",
    "put_in_order",
    "put_properties",
    "store_constants",
    "tensor_names",
    "uses",
    "with_outputs",
]


def copy_of(model: ModelProto) -> ModelProto:
    """Return a copy that may be changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def is_default_domain(node: NodeProto) -> bool:
    """Whether the node's operator is ONNX's own."""
    return node.domain in ("", "ai.onnx")


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the fixed tensors by name: initializers, and results of Constant nodes."""
    found = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and is_default_domain(node):
            found.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    return found


def store_constants(model: ModelProto) -> ModelProto:
    """Return a copy whose fixed tensors are all initializers, and none of them an input that could be replaced."""
    copy = copy_of(model)
    graph = copy.graph
    stored = {item.name for item in graph.initializer}
    for name, tensor in constants(graph).items():
        if name not in stored:
            graph.initializer.append(tensor)
            graph.initializer[-1].name = name
    fixed = {item.name for item in graph.initializer}
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] not in fixed]
    inputs = [item for item in graph.input if item.name not in fixed]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    allow_stored(copy)
    return copy


def allow_stored(model: ModelProto) -> None:
    """Raise the IR version to 4 if it is lower: before, an initializer had to be an input as well."""
    model.ir_version = max(model.ir_version, 4)


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def uses(graph: GraphProto) -> Counter[str]:
    """Count how often each tensor is taken, as an input of a node (subgraphs too) or as an output of the graph."""
    found = Counter(name for node in graph.node for name in _taken(node))
    found.update(item.name for item in graph.output)
    return found


def _taken(node: NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                yield from _taken(inner)
            yield from (item.name for item in graph.output)


def tensor_names(graph: GraphProto) -> frozenset[str]:
    """Return every tensor that a node takes or makes, and every fixed one."""
    return frozenset(
        (*(name for node in graph.node for name in (*node.input, *node.output)), *(x.name for x in graph.initializer))
    ) - {""}


def put_in_order(graph: GraphProto, *, subject: str) -> None:
    """Sort the nodes so that each comes after what feeds it; the order at hand decides where there is a choice.

    Raises InputError if the graph has a loop.
    """
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [{maker[name] for name in _taken(node) if name in maker} for node in nodes]
    users: dict[int, list[int]] = {}
    for index, needs in enumerate(waiting):
        for need in needs:
            users.setdefault(need, []).append(index)
    ready = [index for index, needs in enumerate(waiting) if not needs]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            waiting[user].discard(index)
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) != len(nodes):
        raise InputError(subject, "has a loop in its graph", evidence=f"{len(nodes) - len(order)} nodes wait in it")
    sorted_nodes = [nodes[index] for index in order]
    del graph.node[:]
    graph.node.extend(sorted_nodes)


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """Return a copy that also gives the tensors `names` as outputs."""
    copy = copy_of(model)
    present = {item.name for item in copy.graph.output}
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return copy


def properties(model: ModelProto) -> dict[str, str]:
    """Return the model's metadata."""
    return {item.key: item.value for item in model.metadata_props}


def put_properties(model: ModelProto, values: Mapping[str, str]) -> None:
    """Add metadata to what is there; a key that is there takes the new value."""
    merged = properties(model) | dict(values)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, merged)
