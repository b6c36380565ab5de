"""Write small Keras HDF5 files in TAO's layout, so that tests need no file of a real training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Entry = dict[str, Any]


@dataclass
class KerasFile:
    """Collects layers; every method returns the new layer's name, to feed the next one."""

    input_chw: tuple[int, int, int] = (3, 32, 48)
    seed: int = 0
    layers: list[Entry] = field(default_factory=list)
    weights: dict[str, list[tuple[str, np.ndarray[Any, Any]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.input = self.layer(
            "input_1", "InputLayer", {"batch_input_shape": [None, *self.input_chw], "dtype": "float32", "sparse": False}
        )

    def layer(
        self,
        name: str,
        class_name: str,
        config: Entry,
        feeds: Sequence[str] = (),
        weights: Sequence[tuple[str, np.ndarray[Any, Any]]] = (),
    ) -> str:
        self.layers.append(
            {
                "name": name,
                "class_name": class_name,
                "config": {"name": name, **({} if class_name == "InputLayer" else {"trainable": True}), **config},
                "inbound_nodes": [[[feed, 0, 0, {}] for feed in feeds]] if feeds else [],
            }
        )
        self.weights[name] = [(f"{name}/{role}:0", array.astype(np.float32)) for role, array in weights]
        return name

    def conv(
        self, name: str, feed: str, channels: int, filters: int, *, kernel: tuple[int, int] = (3, 3),
        strides: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), padding: str = "same",
        activation: str = "linear", use_bias: bool = True, class_name: str = "Conv2D",
    ) -> str:  # fmt: skip
        scale = 1.0 / np.sqrt(channels * kernel[0] * kernel[1])
        weights = [("kernel", self.random.normal(0, scale, (*kernel, channels, filters)))]
        if use_bias:
            weights.append(("bias", self.random.normal(0, 0.1, filters)))
        config = {
            "filters": filters, "kernel_size": list(kernel), "strides": list(strides), "padding": padding,
            "dilation_rate": list(dilation), "activation": activation, "use_bias": use_bias,
            "data_format": "channels_first",
        }  # fmt: skip
        return self.layer(name, class_name, config, [feed], weights)

    def depthwise(
        self, name: str, feed: str, channels: int, *, kernel: tuple[int, int] = (3, 3),
        strides: tuple[int, int] = (1, 1), padding: str = "valid", multiplier: int = 1,
        use_bias: bool = False, activation: str = "linear", dilation: tuple[int, int] = (1, 1),
        class_name: str = "DepthwiseConv2D",
    ) -> str:  # fmt: skip
        weights = [("depthwise_kernel", self.random.normal(0, 0.3, (*kernel, channels, multiplier)))]
        if use_bias:
            weights.append(("bias", self.random.normal(0, 0.1, channels * multiplier)))
        config = {
            "kernel_size": list(kernel), "strides": list(strides), "padding": padding,
            "depth_multiplier": multiplier, "use_bias": use_bias, "activation": activation,
            "dilation_rate": list(dilation), "data_format": "channels_first",
        }  # fmt: skip
        return self.layer(name, class_name, config, [feed], weights)

    def batch_norm(self, name: str, feed: str, channels: int, *, axis: int = 1) -> str:
        weights = [
            ("gamma", self.random.uniform(0.5, 1.5, channels)),
            ("beta", self.random.normal(0, 0.2, channels)),
            ("moving_mean", self.random.normal(0, 0.2, channels)),
            ("moving_variance", self.random.uniform(0.5, 1.5, channels)),
        ]
        return self.layer(name, "BatchNormalization", {"axis": axis, "epsilon": 1e-3}, [feed], weights)

    def heads(self, feed: str, channels: int, classes: int = 2) -> None:
        self.conv("output_bbox", feed, channels, 4 * classes, kernel=(1, 1))
        self.conv("output_cov", feed, channels, classes, kernel=(1, 1), activation="sigmoid")

    def copy(self) -> KerasFile:
        """Return another file that shares the layers and weights with this one."""
        made = KerasFile(input_chw=self.input_chw)
        made.layers, made.weights = list(self.layers), dict(self.weights)
        return made

    def model_config(self) -> Entry:
        return {
            "class_name": "Model",
            "config": {
                "name": "test_detectnet_v2",
                "layers": self.layers,
                "input_layers": [["input_1", 0, 0]],
                "output_layers": [["output_bbox", 0, 0], ["output_cov", 0, 0]],
            },
        }

    def write(self, path: Path, *, as_bytes: bool = False) -> Path:
        write_keras(path, self.model_config(), self.weights, as_bytes=as_bytes)
        return path


def write_keras(
    path: Path,
    model_config: Entry | str,
    weights: dict[str, list[tuple[str, np.ndarray[Any, Any]]]],
    *,
    as_bytes: bool = False,
) -> None:
    """Write the file; h5py 2 (TAO's) wrote attributes as bytes, newer ones as str."""

    def text(value: str) -> Any:
        return np.bytes_(value) if as_bytes else value

    with h5py.File(path, "w") as file:
        config = model_config if isinstance(model_config, str) else json.dumps(model_config)
        file.attrs["model_config"] = text(config)
        file.attrs["keras_version"] = text("2.2.4")
        file.attrs["backend"] = text("tensorflow")
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = np.array([name.encode() for name in weights], dtype="S")
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name, _ in arrays], dtype="S")
            for name, array in arrays:
                group.create_dataset(name, data=array)


def tiny_resnet(path: Path, *, classes: int = 2, input_chw: tuple[int, int, int] = (3, 32, 48)) -> Path:
    """A complete little detector with stride 4: conv, BN, relu, one residual block, both heads."""
    file = KerasFile(input_chw=input_chw)
    x = file.conv("conv1", file.input, input_chw[0], 8, kernel=(7, 7), strides=(2, 2))
    x = file.batch_norm("bn_conv1", x, 8)
    x = file.layer("activation_1", "Activation", {"activation": "relu"}, [x])
    y = file.conv("block_1a_conv_1", x, 8, 8, strides=(2, 2))
    y = file.batch_norm("block_1a_bn_1", y, 8)
    s = file.conv("block_1a_conv_shortcut", x, 8, 8, kernel=(1, 1), strides=(2, 2), padding="valid")
    x = file.layer("add_1", "Add", {}, [y, s])
    x = file.layer("block_1a_relu", "Activation", {"activation": "relu"}, [x])
    file.heads(x, 8, classes)
    return file.write(path)
