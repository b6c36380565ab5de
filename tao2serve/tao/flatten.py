"""Keras's saved graph (models may nest in models) → one flat list of layers in the order they run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.errors import InputError
from tao2serve.tao.keras import KerasLayer, KerasModel, Weight

__all__ = ["flatten"]

_MODEL_CLASSES = frozenset({"Model", "Functional"})
_MAX_DEPTH = 8
_Reference = tuple[str, int]  # (layer as named in its own model, output index)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """A model within the file: where its layers' outputs are found, by their own names."""

    layers: tuple[KerasLayer, ...]
    outputs: tuple[str, ...]  # flat names
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What the walk needs to know everywhere."""

    path: Path
    weights: Mapping[str, tuple[Weight, ...]]
    taken: set[str]

    def fail(self, fact: str, *, layer: str = "", evidence: object = "") -> InputError:
        subject = f"{self.path}: layer {layer}" if layer else str(self.path)
        return InputError(subject, fact, evidence=str(evidence)[:300])

    def unique(self, name: str, parent: str) -> str:
        """Keep a layer's own name, because TensorFlow's tensor names use it; prefix only on a collision."""
        flat = name if name not in self.taken else f"{parent}/{name}"
        if flat in self.taken:
            raise self.fail("occurs twice", layer=name)
        self.taken.add(flat)
        return flat


def flatten(
    config: Mapping[str, Any],
    weights: Mapping[str, tuple[Weight, ...]],
    *,
    path: Path,
    sha256: str,
    keras_version: str,
) -> KerasModel:
    """Build the flat model from the parsed `model_config` and each layer group's weights.

    Raises InputError for a graph that is not one: unknown references, loops, a layer applied twice.
    """
    context = _Context(path=path, weights=weights, taken=set())
    top = _level(config, context, parent="", feeds=None, weights=None, depth=0)
    if not top.outputs or not top.inputs:
        raise context.fail("has a model without input or output")
    return KerasModel(
        path=path,
        sha256=sha256,
        name=str(config["config"].get("name", "")),
        keras_version=keras_version,
        layers=top.layers,
        inputs=top.inputs,
        outputs=top.outputs,
    )


def _level(
    config: Mapping[str, Any],
    context: _Context,
    *,
    parent: str,
    feeds: tuple[str, ...] | None,
    weights: Iterator[Weight] | None,
    depth: int,
) -> _Level:
    """Flatten one model. `feeds` are the flat names that take the place of its inputs when it is nested."""
    entries = _entries(config, context, parent)
    if depth > _MAX_DEPTH:
        raise context.fail("nests models too deeply", layer=parent)
    input_names = [ref[0] for ref in _references(config["config"].get("input_layers"), context, parent)]
    if feeds is not None and len(feeds) != len(input_names):
        raise context.fail("is fed by another number of layers than it has inputs", layer=parent)
    nested = _split_nested(entries, context, parent, weights) if feeds is not None else {}
    made: dict[_Reference, str] = {}
    layers: list[KerasLayer] = []
    for name in _order(entries, context):
        entry = entries[name]
        inbound = tuple(_lookup(made, ref, name, context) for ref in _inbound(entry, name, context))
        if feeds is not None and name in input_names:
            made[name, 0] = feeds[input_names.index(name)]
            continue
        if entry["class_name"] in _MODEL_CLASSES:
            inner = _level(
                entry,
                context,
                parent=name,
                feeds=inbound,
                depth=depth + 1,
                weights=iter(nested[name] if feeds is not None else context.weights.get(name, ())),
            )
            layers += inner.layers
            made.update({(name, index): flat for index, flat in enumerate(inner.outputs)})
            continue
        flat = context.unique(name, parent)
        own = nested[name] if feeds is not None else context.weights.get(name, ())
        layers.append(
            KerasLayer(
                name=flat,
                class_name=entry["class_name"],
                config=entry["config"],
                inbound=inbound,
                weights=tuple(own),
                path=context.path,
            )
        )
        made[name, 0] = flat
    outputs = [
        _lookup(made, ref, parent, context)
        for ref in _references(config["config"].get("output_layers"), context, parent)
    ]
    inputs = [_lookup(made, (name, 0), parent, context) for name in input_names]
    return _Level(layers=tuple(layers), outputs=tuple(outputs), inputs=tuple(inputs))


def _entries(config: Mapping[str, Any], context: _Context, parent: str) -> dict[str, dict[str, Any]]:
    """Return the layers of one saved model by name, each with its parts checked."""
    inner = config.get("config")
    if config.get("class_name") not in _MODEL_CLASSES or not isinstance(inner, dict):
        raise context.fail(
            "is not a Keras functional model", layer=parent, evidence=f"class {config.get('class_name')!r}"
        )
    entries: dict[str, dict[str, Any]] = {}
    raw = inner.get("layers")
    for entry in raw if isinstance(raw, list) else ():
        parts = entry if isinstance(entry, dict) else {}
        name = parts.get("name")
        if (
            not isinstance(name, str)
            or not name
            or not isinstance(parts.get("class_name"), str)
            or not isinstance(parts.get("config"), dict)
        ):
            raise context.fail("has a layer that is not one", layer=parent, evidence=repr(entry)[:200])
        if name in entries:
            raise context.fail("occurs twice", layer=name)
        entries[name] = parts
    if not entries:
        raise context.fail("has no layers", layer=parent)
    return entries


def _references(value: object, context: _Context, where: str) -> list[_Reference]:
    """Read `[[layer, node, tensor, …], …]`; the node index is not needed, since each layer runs once."""
    items = value if isinstance(value, list) else [None]
    if items and isinstance(items[0], str):  # a single reference is sometimes saved without the outer list
        items = [items]
    found: list[_Reference] = []
    for item in items:
        if not (isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str) and isinstance(item[2], int)):
            raise context.fail("has a reference that is not one", layer=where, evidence=repr(item))
        found.append((item[0], int(item[2])))
    return found


def _inbound(entry: Mapping[str, Any], name: str, context: _Context) -> list[_Reference]:
    nodes = entry.get("inbound_nodes")
    if not isinstance(nodes, list):
        raise context.fail("has no inbound_nodes", layer=name)
    if len(nodes) > 1:
        raise context.fail("is applied more than once, which no TAO template does", layer=name)
    return _references(nodes[0], context, name) if nodes else []


def _lookup(made: Mapping[_Reference, str], reference: _Reference, where: str, context: _Context) -> str:
    if reference not in made:
        raise context.fail("takes a value no layer makes", layer=where, evidence=reference)
    return made[reference]


def _order(entries: Mapping[str, Mapping[str, Any]], context: _Context) -> list[str]:
    """Return the names so that each comes after what feeds it; file order where there is a choice."""
    waiting = {
        name: {ref[0] for ref in _inbound(entry, name, context)} & set(entries) for name, entry in entries.items()
    }
    users: dict[str, list[str]] = {}
    for name, needs in waiting.items():
        for need in needs:
            users.setdefault(need, []).append(name)
    names = list(entries)
    place = {name: index for index, name in enumerate(names)}
    ready = [place[name] for name, needs in waiting.items() if not needs]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for user in users.get(name, ()):
            waiting[user].discard(name)
            if not waiting[user]:
                heapq.heappush(ready, place[user])
    if len(order) != len(entries):
        stuck = sorted(set(entries) - set(order))
        raise context.fail("is part of a loop", layer=stuck[0], evidence=", ".join(stuck[:5]))
    return order


def _split_nested(
    entries: Mapping[str, Mapping[str, Any]],
    context: _Context,
    parent: str,
    weights: Iterator[Weight] | None,
) -> dict[str, list[Weight]]:
    """Share a nested model's one list of weights among its layers.

    Keras lists all trainable weights in layer order, then all others in layer order
    (keras/engine/network.py, Network.weights, 2.2.4); a model within gets its share in that same form.
    """
    pool = weights if weights is not None else iter(())
    shares: dict[str, list[Weight]] = {name: [] for name in entries}
    for trainable in (True, False):
        for name, entry in entries.items():
            counts = _weight_counts(entry)
            for _ in range(counts[0] if trainable else counts[1]):
                weight = next(pool, None)
                if weight is None:
                    raise context.fail("has fewer weights than its layers need", layer=parent)
                shares[name].append(weight)
    left = next(pool, None)
    if left is not None:
        raise context.fail("has more weights than its layers need", layer=parent, evidence=f"first: {left.name}")
    return shares


def _weight_counts(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many trainable and other weights a layer has, by its class and settings."""
    config, class_name = entry["config"], entry["class_name"]
    bias = 1 if config.get("use_bias", True) else 0
    if class_name in ("Conv2D", "QuantizedConv2D", "DepthwiseConv2D", "QuantizedDepthwiseConv2D"):
        # `quantize` adds the range of the layer's input; TAO itself writes false and a QDQ layer instead
        counts = (1 + bias, int(class_name.startswith("Quantized") and bool(config.get("quantize", False))))
    elif class_name == "QDQ":
        counts = (0, 1)
    elif class_name == "BatchNormalization":
        counts = (int(bool(config.get("scale", True))) + int(bool(config.get("center", True))), 2)
    elif class_name in _MODEL_CLASSES:
        inner = [_weight_counts(x) for x in config.get("layers", ()) if isinstance(x, dict) and "config" in x]
        counts = (sum(x[0] for x in inner), sum(x[1] for x in inner))
    else:
        counts = (0, 0)
    return counts if config.get("trainable", True) else (0, sum(counts))
