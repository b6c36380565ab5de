"""Networks of TAO's layout and full size, with weights that nobody trained, for measurements.

Random weights keep activations near one from layer to layer, so that outputs are neither all alike nor infinite, and
no box they give means anything. `write_light` is another kind: fast, and it finds what pictures.py draws.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = [
    "LIGHT_CLASSES",
    "light_spec",
    "write_light",
    "write_one_convolution",
    "write_resnet18",
    "write_resnet101",
    "write_vgg19",
]

LIGHT_CLASSES = ("red", "green", "blue")
BBOX_SCALE = 35.0
_LIGHT_HALF_SIDE = 56  # pixels: boxes of neighbouring cells then overlap by IoU 0.75, within DBSCAN's eps of 0.3

_HEAD_GAIN = 100.0  # spreads coverage over most of (0, 1), so that a wrong reading shows
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_resnet18(path: Path, *, height: int = 544, width: int = 960, classes: int = 3, seed: int = 0) -> Path:
    """Write TAO's resnet18 detector (all projections, batch norm, stride 16) as Keras HDF5; returns `path`.

    The same arguments give the same weights.
    """
    network = _Network(height=height, width=width, seed=seed)
    x = network.stem(64, kernel=7)
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            strides = 2 if block == 0 and stage < 4 else 1
            x = network.basic_block(f"block_{stage}{_LETTERS[block]}", x, filters, strides=strides)
    return network.write(path, x, classes=classes)


def write_one_convolution(path: Path, *, height: int = 544, width: int = 960, classes: int = 3, seed: int = 0) -> Path:
    """Write a single convolution of stride 16 and both heads: hardly a network, so that what is around one shows."""
    network = _Network(height=height, width=width, seed=seed)
    return network.write(path, network.conv("conv1", "input_1", 8, kernel=3, strides=16), classes=classes)


def write_resnet101(path: Path, *, height: int = 544, width: int = 960, classes: int = 3, seed: int = 0) -> Path:
    """Write a resnet of bottleneck blocks, 3 + 4 + 23 + 3 of them, like `write_resnet18`."""
    network = _Network(height=height, width=width, seed=seed)
    x = network.stem(64, kernel=7)
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 23), (512, 3)), start=1):
        for block in range(blocks):
            strides = 2 if block == 0 and stage < 4 else 1
            x = network.bottleneck_block(f"block_{stage}{_LETTERS[block]}", x, filters, strides=strides)
    return network.write(path, x, classes=classes)


def write_vgg19(path: Path, *, height: int = 544, width: int = 960, classes: int = 3, seed: int = 0) -> Path:
    """Write a vgg19 with batch norm and four 2x2 poolings, like `write_resnet18`."""
    network = _Network(height=height, width=width, seed=seed)
    x = "input_1"
    for stage, (filters, convolutions) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), start=1):
        for index in range(1, convolutions + 1):
            x = network.conv(f"block_{stage}a_conv_{index}", x, filters, kernel=3)
            x = network.relu(f"block_{stage}a_relu_{index}", network.batch_norm(f"block_{stage}a_bn_{index}", x))
        if stage < 5:
            x = network.max_pooling(f"block_{stage}_pool", x)
    return network.write(path, x, classes=classes)


def write_light(path: Path, *, height: int = 544, width: int = 960, seed: int = 0) -> Path:
    """Write a detector of red, green and blue things that takes milliseconds, like `write_resnet18`.

    Four convolutions of stride 2. Three channels of each carry the colours on, averaged; all others are random and
    only cost what such channels cost. Coverage is high where one colour stands out, and every cell's box is the
    square of 112 pixels around it, so that the cells of one thing become one box.
    """
    network = _Network(height=height, width=width, seed=seed)
    x = "input_1"
    for stage, filters in enumerate((12, 24, 48, 96), start=1):
        x = network.conv(f"conv_{stage}", x, filters, kernel=3, strides=2)
        network.carry_colours(x)
        x = network.relu(f"relu_{stage}", x)
    return network.write_colour_heads(path, x)


def light_spec(*, height: int = 544, width: int = 960) -> str:
    """Return the experiment spec of `write_light`'s detector."""
    targets = "\n".join(f'  target_classes {{ name: "{name}" }}' for name in LIGHT_CLASSES)
    numbers = (
        "coverage_threshold: 0.005 dbscan_eps: 0.3 dbscan_min_samples: 1 dbscan_confidence_threshold: 0.9 "
        "minimum_bounding_box_height: 8 clustering_algorithm: DBSCAN"
    )
    clustering = "\n".join(
        f'  target_class_config {{ key: "{name}" value {{ clustering_config {{ {numbers} }} }} }}'
        for name in LIGHT_CLASSES
    )
    size = f"output_image_width: {width} output_image_height: {height} output_image_channel: 3"
    return (
        f"cost_function_config {{\n{targets}\n}}\n"
        f"augmentation_config {{ preprocessing {{ {size} }} }}\n"
        f"model_config {{ objective_set {{ bbox {{ scale: {BBOX_SCALE} offset: 0.5 }} cov {{ }} }} }}\n"
        f"postprocessing_config {{\n{clustering}\n}}\n"
    )


class _Network:
    """Collects layers in Keras 2.2.4's form; each method returns the new layer's name."""

    def __init__(self, *, height: int, width: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._layers: list[dict[str, Any]] = []
        self._weights: dict[str, list[tuple[str, np.ndarray[Any, Any]]]] = {}
        self._channels: dict[str, int] = {}
        shape = [None, 3, height, width]
        self._add("input_1", "InputLayer", {"batch_input_shape": shape, "dtype": "float32", "sparse": False}, (), 3)

    def stem(self, filters: int, *, kernel: int) -> str:
        """Halve the image once: convolution, batch norm, ReLU."""
        x = self.conv("conv1", "input_1", filters, kernel=kernel, strides=2)
        return self.relu("activation_1", self.batch_norm("bn_conv1", x))

    def basic_block(self, name: str, feed: str, filters: int, *, strides: int) -> str:
        """Two 3x3 convolutions beside a projection."""
        x = self.conv(f"{name}_conv_1", feed, filters, kernel=3, strides=strides)
        x = self.relu(f"{name}_relu_1", self.batch_norm(f"{name}_bn_1", x))
        x = self.conv(f"{name}_conv_2", x, filters, kernel=3)
        return self._join(name, feed, x, f"{name}_bn_2", strides=strides)

    def bottleneck_block(self, name: str, feed: str, filters: int, *, strides: int) -> str:
        """A 1x1, a 3x3 and a 1x1 convolution to four times the filters, beside a projection."""
        x = self.conv(f"{name}_conv_1", feed, filters, kernel=1, strides=strides)
        x = self.relu(f"{name}_relu_1", self.batch_norm(f"{name}_bn_1", x))
        x = self.conv(f"{name}_conv_2", x, filters, kernel=3)
        x = self.relu(f"{name}_relu_2", self.batch_norm(f"{name}_bn_2", x))
        x = self.conv(f"{name}_conv_3", x, 4 * filters, kernel=1)
        return self._join(name, feed, x, f"{name}_bn_3", strides=strides)

    def conv(self, name: str, feed: str, filters: int, *, kernel: int, strides: int = 1, padding: str = "same") -> str:
        """A convolution with bias that keeps the variance of rectified values."""
        return self._conv(name, feed, filters, kernel=kernel, strides=strides, padding=padding, gain=3.0)

    def carry_colours(self, name: str) -> None:
        """Make the first three channels of a convolution the first three of its feed, averaged over the kernel."""
        (kernel_name, kernel), (bias_name, bias) = self._weights[name]
        kernel[..., :3], bias[:3] = 0.0, 0.0
        for channel in range(3):
            kernel[:, :, channel, channel] = 1.0 / (kernel.shape[0] * kernel.shape[1])
        self._weights[name] = [(kernel_name, kernel), (bias_name, bias)]

    def batch_norm(self, name: str, feed: str) -> str:
        """Scales near sqrt(1/2), so that the sum of two branches is no larger than each."""
        channels = self._channels[feed]
        weights = (
            ("gamma", self._random.uniform(0.5, 0.9, channels)),
            ("beta", self._random.normal(0, 0.1, channels)),
            ("moving_mean", self._random.normal(0, 0.1, channels)),
            ("moving_variance", self._random.uniform(0.8, 1.2, channels)),
        )
        config = {"axis": 1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}
        return self._add(name, "BatchNormalization", config, (feed,), channels, weights)

    def relu(self, name: str, feed: str) -> str:
        return self._add(name, "Activation", {"activation": "relu"}, (feed,), self._channels[feed])

    def max_pooling(self, name: str, feed: str) -> str:
        config = {"pool_size": [2, 2], "strides": [2, 2], "padding": "same", "data_format": "channels_first"}
        return self._add(name, "MaxPooling2D", config, (feed,), self._channels[feed])

    def write(self, path: Path, feed: str, *, classes: int) -> Path:
        """Add both heads and write the file."""
        self._conv("output_bbox", feed, 4 * classes, kernel=1, gain=_HEAD_GAIN)
        self._conv("output_cov", feed, classes, kernel=1, activation="sigmoid", gain=_HEAD_GAIN)
        return self._save(path)

    def write_colour_heads(self, path: Path, feed: str) -> Path:
        """Add heads that find carried colours and write the file; a colour stands out by its lead over the others."""
        self._conv("output_bbox", feed, 4 * len(LIGHT_CLASSES), kernel=1)
        self._conv("output_cov", feed, len(LIGHT_CLASSES), kernel=1, activation="sigmoid")
        (_, sides), (_, side) = self._weights["output_bbox"]
        (_, colours), (_, level) = self._weights["output_cov"]
        sides[:], side[:] = 0.0, _LIGHT_HALF_SIDE / BBOX_SCALE
        colours[:], level[:] = 0.0, -9.0
        colours[0, 0, :3, :3] = np.eye(3) * 36.0 - 12.0  # a lead of 0.1 gives 0.001, one of 0.6 gives 0.996
        return self._save(path)

    def _save(self, path: Path) -> Path:
        config = {
            "name": path.stem,
            "layers": self._layers,
            "input_layers": [["input_1", 0, 0]],
            "output_layers": [["output_bbox", 0, 0], ["output_cov", 0, 0]],
        }
        with h5py.File(path, "w") as file:
            # TAO's h5py 2 writes bytes.
            file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": config}).encode()
            file.attrs["keras_version"], file.attrs["backend"] = b"2.2.4", b"tensorflow"
            root = file.create_group("model_weights")
            root.attrs["layer_names"] = np.array([name.encode() for name in self._weights])
            root.attrs["keras_version"], root.attrs["backend"] = b"2.2.4", b"tensorflow"
            for layer, weights in self._weights.items():
                group = root.create_group(layer)
                group.attrs["weight_names"] = np.array([name.encode() for name, _ in weights], dtype="S")
                for name, values in weights:
                    group.create_dataset(name, data=values)
        return path

    def _join(self, name: str, feed: str, branch: str, branch_norm: str, *, strides: int) -> str:
        """Add the projection of `feed`. Layers lie in Keras's own order, by depth: tf-keras pairs weights by it."""
        filters = self._channels[branch]
        shortcut = self.conv(f"{name}_conv_shortcut", feed, filters, kernel=1, strides=strides, padding="valid")
        branch = self.batch_norm(branch_norm, branch)
        shortcut = self.batch_norm(f"{name}_bn_shortcut", shortcut)
        added = 1 + sum(layer["class_name"] == "Add" for layer in self._layers)
        joined = self._add(f"add_{added}", "Add", {}, (branch, shortcut), filters)
        return self.relu(f"{name}_relu", joined)

    def _conv(
        self, name: str, feed: str, filters: int, *, kernel: int, strides: int = 1, padding: str = "same",
        activation: str = "linear", gain: float = 1.0,
    ) -> str:  # fmt: skip
        channels = self._channels[feed]
        values = self._random.standard_normal((kernel, kernel, channels, filters), np.float32)
        # What all channels share would drown what differs: every image would give the same grids.
        values -= values.mean(axis=2 if feed != "input_1" else (0, 1, 2), keepdims=True)
        weights = (
            ("kernel", values * np.sqrt(gain / (kernel * kernel * channels))),
            ("bias", self._random.normal(0, 0.1, filters)),
        )
        config = {
            "filters": filters, "kernel_size": [kernel, kernel], "strides": [strides, strides], "padding": padding,
            "data_format": "channels_first", "dilation_rate": [1, 1], "activation": activation, "use_bias": True,
        }  # fmt: skip
        return self._add(name, "Conv2D", config, (feed,), filters, weights)

    def _add(
        self,
        name: str,
        class_name: str,
        config: dict[str, Any],
        feeds: Sequence[str],
        channels: int,
        weights: Sequence[tuple[str, np.ndarray[Any, Any]]] = (),
    ) -> str:
        settings = (
            {"name": name, **config} if class_name == "InputLayer" else {"name": name, "trainable": True, **config}
        )
        inbound = [[[feed, 0, 0, {}] for feed in feeds]] if feeds else []
        self._layers.append({"name": name, "class_name": class_name, "config": settings, "inbound_nodes": inbound})
        self._weights[name] = [(f"{name}/{role}:0", values.astype(np.float32)) for role, values in weights]
        self._channels[name] = channels
        return name
