"""Damage model files and specs: their bytes, and what the bytes mean (protobuf fields, JSON, HDF5 attributes)."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from onnx import ModelProto

TOKENS = [b"{", b"}", b"\xff", b'"', b":", b"[null]", b"-1", b"1e999", b"\x00" * 8, b"\xff" * 8, b"inf", b"/../"]
NUMBERS = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 255, 65_536, 2**31 - 1, 2**31, 2**40, 2**63 - 1]
REALS = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e-45, 1e10, 3e38]
TEXTS = ["", "x", "\u00e9", "a/b", "../../etc/passwd", "/etc/passwd", "N", "x" * 5000, "com.acme", "nan", "\x00"]
VALUES = [None, True, False, "", "same", "relu", [], {}, [[]], [1], [1, 2], [[1, 2], [3, 4]], *NUMBERS, *REALS, *TEXTS]


def damage_bytes(source: Path, target: Path, chance: random.Random) -> None:
    """Damage a file's bytes, whatever they mean."""
    target.write_bytes(mutate(source.read_bytes(), chance))


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Cut, overwrite, insert, delete or repeat a few places."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        if not changed:
            break
        place = chance.randrange(len(changed))
        kind = chance.randrange(6)
        if kind == 0:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            token = chance.choice(TOKENS)
            changed[place : place + len(token)] = token
        elif kind == 2:
            changed[place:place] = chance.choice(TOKENS)
        elif kind == 3:
            del changed[place : place + chance.randrange(1, 64)]
        elif kind == 4:
            changed[place:place] = changed[place : place + chance.randrange(1, 256)]
        else:
            del changed[place + chance.randrange(len(changed)) :]
    return bytes(changed)


def damage_onnx(source: Path, target: Path, chance: random.Random) -> None:
    """Change fields of the ONNX messages: dimensions, attributes, names, types, edges, versions, whole nodes."""
    model = ModelProto.FromString(source.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        messages = _messages(model)
        if messages:
            _damage_message(chance.choice(messages), messages, chance)
    target.write_bytes(model.SerializeToString())


def _messages(model: ModelProto) -> list[Any]:
    """Every message, with those that hold numbers of weights no more often than others."""
    found, waiting = [], [model]
    while waiting:
        message = waiting.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)
    return found


def _damage_message(message: Any, messages: list[Any], chance: random.Random) -> None:
    field = chance.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    repeated = hasattr(value, "append") or hasattr(value, "add")
    if field.message_type is not None:
        others = [x for x in messages if x.DESCRIPTOR.name == field.message_type.name]
        if repeated:
            _damage_repeated(value, others, chance)
        elif others and chance.random() < 0.7:
            value.ParseFromString(chance.choice(others).SerializeToString())  # which may hold `value` itself
        else:
            message.ClearField(field.name)
        return
    if repeated and chance.random() < 0.3:
        del value[chance.randrange(len(value) + 1) :]
        return
    scalar = _scalar(field, messages, chance)
    if not repeated:
        setattr(message, field.name, scalar)
    elif len(value) and chance.random() < 0.7:
        value[chance.randrange(len(value))] = scalar
    else:
        value.append(scalar)


def _damage_repeated(value: Any, others: list[Any], chance: random.Random) -> None:
    kind = chance.randrange(3)
    if kind == 0 and len(value):
        del value[chance.randrange(len(value))]
    elif kind == 1 and len(value) > 1:
        one, two = chance.randrange(len(value)), chance.randrange(len(value))
        contents = value[one].SerializeToString(), value[two].SerializeToString()
        value[two].ParseFromString(contents[0])
        value[one].ParseFromString(contents[1])
    elif others:
        content = chance.choice(others).SerializeToString()
        value.add().ParseFromString(content)


def _scalar(field: Any, messages: list[Any], chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice(REALS)
    if field.cpp_type == field.CPPTYPE_STRING:
        names = [name for message in messages if message.DESCRIPTOR.name == "NodeProto" for name in message.output]
        text = chance.choice(names) if names and chance.random() < 0.5 else chance.choice(TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    number = chance.choice(NUMBERS)
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return abs(number) % 2**32
    bits = 31 if field.cpp_type == field.CPPTYPE_INT32 else 63
    return max(-(2**bits), min(2**bits - 1, number))


def damage_keras(source: Path, target: Path, chance: random.Random) -> None:
    """Change what a Keras file says: settings and graph (its JSON), names and weights (its HDF5)."""
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        altered = False  # then the attribute may be no JSON any more
        for _ in range(chance.choice([1, 1, 2, 3])):
            if chance.random() < 0.6 and not altered:
                config = json.loads(file.attrs["model_config"])
                for _ in range(chance.choice([1, 1, 2, 4])):
                    _damage_json(config, chance)
                file.attrs["model_config"] = json.dumps(config)
            else:
                altered = True
                _damage_hdf5(file, chance)


def _damage_json(config: Any, chance: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    waiting = [config]
    while waiting:
        node = waiting.pop()
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in inner:
            places.append((node, key))
            waiting.append(value)
    if not places:
        return
    node, key = chance.choice(places)
    kind = chance.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.insert(key, node[chance.randrange(len(node))])
    elif kind == 2:
        other, name = chance.choice(places)
        copied = json.loads(json.dumps(other[name]))
        node[key] = copied if len(json.dumps(copied)) < 20_000 else chance.choice(VALUES)
    elif kind == 3:
        node[key] = [[[node[key]]]] if chance.random() < 0.5 else {"value": node[key]}
    else:
        node[key] = chance.choice(VALUES)


def _damage_hdf5(file: Any, chance: random.Random) -> None:
    groups: list[Any] = [file]
    datasets: list[Any] = []
    file.visititems(lambda _name, item: (groups if isinstance(item, h5py.Group) else datasets).append(item))
    kind = chance.randrange(5)
    group = chance.choice(groups)
    if kind == 0 and len(group.attrs):
        name = chance.choice(list(group.attrs))
        values = [b"", b"conv1/kernel:0", np.array([b"conv1", b"x"]), 7, np.arange(4.0), "\u00e9", h5py.Empty("f")]
        group.attrs[name] = chance.choice(values)
    elif kind == 1 and len(group):
        del group[chance.choice(list(group))]
    elif kind == 2 and len(group):
        name = chance.choice(list(group))
        del group[name]
        links = [h5py.SoftLink("/model_weights"), h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink(group.name)]
        group[name] = chance.choice(links)
    elif datasets:
        _damage_dataset(file, chance.choice(datasets), chance)


def _damage_dataset(file: Any, dataset: Any, chance: random.Random) -> None:
    values = np.array(dataset[()])
    if chance.random() < 0.5 and values.size:
        flat = values.reshape(-1)
        flat[chance.randrange(flat.size)] = chance.choice(REALS)
        dataset[...] = values
        return
    name = dataset.name
    del file[name]
    shapes = [(), (0,), (1,), (2, 2), values.shape[::-1], (*values.shape, 1), (1,) * 9]
    kinds = ["f4", "f8", "f2", "i4", "S3", "?", "c8", np.dtype([("a", "f4")])]
    file.create_dataset(name, shape=chance.choice(shapes), dtype=chance.choice(kinds))


def damage_spec(source: Path, target: Path, chance: random.Random) -> None:
    """Change lines and words of an experiment spec."""
    lines = source.read_text().splitlines()
    for _ in range(chance.choice([1, 2, 4])):
        place, kind = chance.randrange(len(lines)), chance.randrange(4)
        if kind == 0 and len(lines) > 1:
            del lines[place]
        elif kind == 1:
            lines.insert(place, chance.choice(lines))
        elif kind == 2:
            lines[place], lines[0] = lines[0], lines[place]
        else:
            words = lines[place].split(" ")
            word = chance.choice([str(chance.choice(VALUES)), chance.choice(["{", "}", "[", "<", "#", "true", "''"])])
            words[chance.randrange(len(words))] = word
            lines[place] = " ".join(words)
    target.write_text("\n".join(lines), encoding="utf-8")
