"""Detectors in TAO's own HDF5 layout, one for every DetectNet_v2 template, with random weights that are alive.

    path = template("resnet18", input_chw=(3, 96, 160), width=0.25).write(tmp_path / "model.hdf5")

Variants of one model: pruned (irregular channels), frozen BatchNormalization, trained for quantization,
nested in another model. `width` 1 is the real one.
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import template_backbones as backbones
from keras_files import KerasFile, write_keras
from template_layers import Backbone, as_designed

from tao2serve.export.reference import layer_outputs
from tao2serve.tao.flatten import flatten
from tao2serve.tao.keras import Array, KerasModel, Weight

__all__ = ["TEMPLATES", "blank", "images", "in_memory", "quantized", "template", "write_nested"]

TEMPLATES: Mapping[str, Callable[[Backbone], None]] = {
    **{f"resnet{depth}": partial(backbones.resnet, depth=depth) for depth in (10, 18, 34, 50, 101)},
    "resnet18_shortcuts": partial(backbones.resnet, depth=18, all_projections=False),
    "resnet34_shortcuts": partial(backbones.resnet, depth=34, all_projections=False),
    "resnet50_shortcuts": partial(backbones.resnet, depth=50, all_projections=False),
    "resnet18_pooling": partial(backbones.resnet, depth=18, use_pooling=True),
    "resnet50_pooling": partial(backbones.resnet, depth=50, all_projections=False, use_pooling=True),
    "vgg16": partial(backbones.vgg, depth=16),
    "vgg19": partial(backbones.vgg, depth=19),
    "vgg16_pooling": partial(backbones.vgg, depth=16, use_pooling=True),
    "vgg19_pooling": partial(backbones.vgg, depth=19, use_pooling=True),
    "googlenet": backbones.googlenet,
    "mobilenet_v1": backbones.mobilenet_v1,
    "mobilenet_v2": backbones.mobilenet_v2,
    "darknet19": partial(backbones.darknet, depth=19),
    "darknet53": partial(backbones.darknet, depth=53),
    "squeezenet": backbones.squeezenet,
    "efficientnet_b0": backbones.efficientnet_b0,
}


def template(
    name: str,
    *,
    input_chw: tuple[int, int, int] = (3, 96, 160),
    classes: int = 2,
    width: float = 1.0,
    batch_norm: bool = True,
    frozen: bool = False,
    pruned: bool = False,
) -> KerasFile:
    """Build a template of `TEMPLATES` with both heads, fitted so that its outputs vary with the image."""
    file = KerasFile(input_chw=input_chw)
    channels = partial(_pruned if pruned else _narrowed, width=width)
    _build(Backbone(file=file, batch_norm=batch_norm, frozen=frozen, channels=channels), name, classes)
    _fit(file)
    return file


def blank(name: str, *, pruned: bool = False) -> KerasFile:
    """Build a template at full width with weights that are all zero: quick, for what only the layers tell."""
    file = KerasFile()
    file.random = cast("np.random.Generator", _Zeros())
    _build(Backbone(file=file, channels=partial(_pruned if pruned else _narrowed, width=1.0)), name, 2)
    return file


class _Zeros:
    """Stands in for a random generator."""

    def normal(self, _mean: float, _deviation: float, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return np.broadcast_to(np.float32(0), shape)

    uniform = normal


def _build(net: Backbone, name: str, classes: int) -> None:
    TEMPLATES[name](net)
    end = net.x
    net.channels = as_designed
    net.conv("output_bbox", 4 * classes, 1, feed=end)
    net.conv("output_cov", classes, 1, activation="sigmoid", feed=end)


def _narrowed(_name: str, filters: int, *, width: float) -> int:
    return max(2, round(filters * width))


def _pruned(name: str, filters: int, *, width: float) -> int:
    """Between half and all of the channels, the same where an Add or a Multiply brings two layers together."""
    share = 0.5 + zlib.crc32(_pruning_group(name, filters).encode()) % 1000 / 2000
    return max(2, round(filters * width * share))


def _pruning_group(name: str, filters: int) -> str:
    if found := re.fullmatch(r"block_(\d)[a-z]+_conv_(\d|shortcut)", name):
        is_end = found[2] in ("2", "shortcut") if filters < 256 << int(found[1]) >> 1 else found[2] != "1"
        return f"stage {found[1]} {filters}" if is_end else name
    if name.endswith(("_project", "project_conv")):
        return f"project {filters}"
    if found := re.fullmatch(r"(block\d[a-z]_)(expand_conv|se_expand)", name):
        return "stem_conv" if found[1] == "block1a_" else found[1]
    if found := re.fullmatch(r"b(\d)_conv\d_2|conv(\d)", name):
        return f"darknet {filters}"
    return name


def _fit(file: KerasFile) -> None:
    """Fit kernels, biases and BatchNormalization to the values that meet them, as training would.

    Otherwise a deep model dies, explodes, or says the same about every image. Works on the arrays of `file`
    itself, each before the reading of the layer that uses it.
    """
    weights = {name: {role.rpartition("/")[2]: x for role, x in pairs} for name, pairs in file.weights.items()}
    model = in_memory(file)
    users = _users(file)
    for name, value in layer_outputs(model, images(file.input_chw, count=2)):
        if value.ndim == 4 and "bias:0" in weights[name] and _is_linear(model, name):
            shift = 0.8 * value.std() - value.mean(axis=(0, 2, 3))  # most of it passes a ReLU
            weights[name]["bias:0"] += shift
            value += shift[:, None, None]  # it is what the next layers will read
        size = np.sqrt(np.mean(np.square(value, dtype=np.float64)))
        for user in users[name]:
            if "moving_mean:0" in weights[user]:
                weights[user]["moving_mean:0"] += value.mean(axis=(0, 2, 3))
                weights[user]["moving_variance:0"] *= value.var()
            for role in weights[user]:
                if role.endswith("kernel:0"):
                    weights[user][role] /= size
        if name == "output_cov":
            assert 0.01 < value.std() < 0.45, value.std()  # neither dead nor only 0 and 1
            assert np.abs(value[0] - value[1]).max() > 0.002, "coverage does not depend on the image"
        if name == "output_bbox":
            assert 0.1 < value.std() < 10, value.std()


def _is_linear(model: KerasModel, name: str) -> bool:
    """Whether the layer is a convolution of the backbone that ends with its bias."""
    layer = next(layer for layer in model.layers if layer.name == name)
    return layer.text("activation", "") == "linear" and name != "output_bbox"


def images(chw: tuple[int, int, int], *, count: int, seed: int = 1) -> Array:
    """Return bright and dark images of coarse blocks under noise, (count, C, H, W) in [0, 1]."""
    random = np.random.default_rng(seed)
    blocks = random.random((count, chw[0], -(-chw[1] // 16), -(-chw[2] // 16)))
    values = 0.7 * blocks.repeat(16, axis=2).repeat(16, axis=3)[:, :, : chw[1], : chw[2]]
    values += 0.3 * random.random(values.shape)
    values *= np.resize([1.0, 0.4, 0.7], count)[:, None, None, None]
    return values.astype(np.float32)


def in_memory(file: KerasFile) -> KerasModel:
    """Read the model without a file between; it shares its arrays with `file`."""
    weights = {name: tuple(Weight(name=n, values=x) for n, x in items) for name, items in file.weights.items()}
    return flatten(file.model_config(), weights, path=Path("memory"), sha256="", keras_version="2.2.4")


def quantized(file: KerasFile) -> KerasFile:
    """Make a model what TAO makes of it for quantization-aware training.

    Convolutions but the heads become Quantized*, an activation they carry becomes a layer of its own, relu-likes
    become ReLU limited to 6, and QDQ layers follow what TensorRT does not fuse.
    """
    made = KerasFile(input_chw=file.input_chw)
    users = _users(file)
    by_name = {entry["name"]: entry for entry in file.layers}
    ends = {file.input: made.layer(f"{file.input}_qdq", "QDQ", {"bitwidth": 8}, [file.input], [_scale()])}
    unnamed = 0
    for entry in file.layers[1:]:
        name, kind, config = entry["name"], entry["class_name"], copy.deepcopy(entry["config"])
        feeds = [ends[reference[0]] for reference in entry["inbound_nodes"][0]]
        tail, needs_qdq = "", True
        if name.startswith("output_"):
            needs_qdq = False
        elif kind in ("Conv2D", "DepthwiseConv2D"):
            kind = f"Quantized{kind}"
            tail, config["activation"] = config["activation"], "linear"
            config |= {"quantize": False, "bitwidth": 8}
            only_user = by_name[users[name][0]] if len(users[name]) == 1 else {}
            needs_qdq = tail != "linear" or only_user.get("class_name") != "BatchNormalization"
        elif kind in ("ReLU", "LeakyReLU") or config.get("activation") == "relu":
            kind, config = "ReLU", {"max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}
        elif kind == "BatchNormalization":
            after = [by_name[user] for user in users[name]]
            is_fused = len(after) == 1 and (
                after[0]["class_name"] in ("ReLU", "LeakyReLU") or after[0]["config"].get("activation") == "relu"
            )
            needs_qdq = not is_fused
        weights = [(role.split("/", 1)[1].removesuffix(":0"), values) for role, values in file.weights[name]]
        end = made.layer(name, kind, config, feeds, weights)
        made.layers[-1]["inbound_nodes"][0][0][3] = entry["inbound_nodes"][0][0][3]
        if tail not in ("", "linear"):
            end = made.layer(f"{name}_qdq", "QDQ", {"bitwidth": 8}, [end], [_scale()])
            unnamed += 1
            end = made.layer(f"activation_{100 + unnamed}", "Activation", {"activation": tail}, [end])
            end = made.layer(f"{name}_act_qdq", "QDQ", {"bitwidth": 8}, [end], [_scale()])
        elif needs_qdq:
            end = made.layer(f"{name}_qdq", "QDQ", {"bitwidth": 8}, [end], [_scale()])
        ends[name] = end
    return made


def _scale() -> tuple[str, np.ndarray[tuple[()], np.dtype[np.float32]]]:
    return "scaling_factor", np.array(4.5, np.float32)


def _users(file: KerasFile) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {entry["name"]: [] for entry in file.layers}
    for entry in file.layers:
        for reference in entry["inbound_nodes"][0] if entry["inbound_nodes"] else ():
            users[reference[0]].append(entry["name"])
    return users


def write_nested(path: Path, file: KerasFile, *, levels: int = 1) -> Path:
    """Write the model as the one layer of another, as TAO's training graph holds it.

    Keras then keeps one list of weights: all it trains in layer order, behind them all others.
    """
    config = file.model_config()
    name = config["config"]["name"]
    for level in range(levels):
        entrance = "input_images" if level == 0 else f"input_images_{level}"
        first = {
            "name": entrance,
            "class_name": "InputLayer",
            "config": {**file.layers[0]["config"], "name": entrance},
            "inbound_nodes": [],
        }
        inner = {**config, "name": name, "inbound_nodes": [[[entrance, 0, 0, {}]]]}
        config = {
            "class_name": "Model",
            "config": {
                "name": name,
                "layers": [first, inner],
                "input_layers": [[entrance, 0, 0]],
                "output_layers": [[name, 1, 0], [name, 1, 1]],
            },
        }
    untrained = re.compile(r"/(moving_mean|moving_variance|scaling_factor):0$")
    pairs = [pair for weights in file.weights.values() for pair in weights]
    trained = [pair for pair in pairs if not untrained.search(pair[0])]
    others = [pair for pair in pairs if untrained.search(pair[0])]
    write_keras(path, config, {entrance: [], name: trained + others})
    return path
