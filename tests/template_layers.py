"""The layers of TAO's templates, written one behind the other with the names and settings TAO gives them.

Channel counts go through `channels()`, so a template can be built narrow for a quick test, or irregular as
pruning leaves it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras_files import Entry, KerasFile

_REGULARIZER = {"class_name": "L1L2", "config": {"l1": 3e-09, "l2": 0.0}}
_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
}
_KERAS_NAMES = {"Activation": "activation", "Add": "add", "AveragePooling2D": "average_pooling2d",
                "MaxPooling2D": "max_pooling2d", "ReLU": "re_lu"}  # fmt: skip


def as_designed(_name: str, filters: int) -> int:
    """The width a template has before pruning."""
    return filters


@dataclass
class Backbone:
    """Writes a template into `file`; `x` is the layer that comes last, `width` its channel count.

    `frozen` gives BatchNormalization the call argument that TAO's `freeze_bn` leaves in the file; `beta` is the
    mean of what it adds.
    """

    file: KerasFile
    batch_norm: bool = True
    frozen: bool = False
    channels: Callable[[str, int], int] = as_designed
    beta: float = 0.2
    x: str = ""
    widths: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.x = self.file.input
        self.widths[self.x] = self.file.input_chw[0]

    @property
    def width(self) -> int:
        return self.widths[self.x]

    def add(
        self, name: str, class_name: str, config: Entry, feeds: list[str], width: int,
        weights: list[tuple[str, np.ndarray[Any, Any]]] | None = None,
    ) -> str:  # fmt: skip
        """Put a layer behind `feeds`; without a name it gets Keras's own, e.g. `activation_1`."""
        if not name:
            self.counts[class_name] += 1
            name = f"{_KERAS_NAMES[class_name]}_{self.counts[class_name]}"
        self.x = self.file.layer(name, class_name, config, feeds, weights or [])
        self.widths[self.x] = width
        return self.x

    def conv(
        self, name: str, filters: int, kernel: int = 3, *, stride: int = 1, padding: str = "same",
        bias: bool = True, activation: str = "linear", feed: str = "",
    ) -> str:  # fmt: skip
        feed = feed or self.x
        filters = self.channels(name, filters)
        shape = (kernel, kernel, self.widths[feed], filters)
        weights = [("kernel", self.file.random.normal(0, 1 / np.sqrt(np.prod(shape[:3])), shape))]
        if bias:
            weights.append(("bias", self.file.random.normal(0, 0.2, filters)))
        config = {
            "filters": filters, "kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding,
            "data_format": "channels_first", "dilation_rate": [1, 1], "activation": activation, "use_bias": bias,
            "kernel_initializer": _INITIALIZER, "bias_initializer": {"class_name": "Zeros", "config": {}},
            "kernel_regularizer": _REGULARIZER, "bias_regularizer": _REGULARIZER, "activity_regularizer": None,
            "kernel_constraint": None, "bias_constraint": None,
        }  # fmt: skip
        return self.add(name, "Conv2D", config, [feed], filters, weights)

    def depthwise(self, name: str, kernel: int = 3, *, stride: int = 1, padding: str = "valid") -> str:
        shape = (kernel, kernel, self.width, 1)
        weights = [("depthwise_kernel", self.file.random.normal(0, 1 / kernel, shape))]
        config = {
            "kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding,
            "data_format": "channels_first", "dilation_rate": [1, 1], "activation": "linear", "use_bias": False,
            "bias_initializer": {"class_name": "Zeros", "config": {}}, "bias_regularizer": _REGULARIZER,
            "activity_regularizer": None, "bias_constraint": None, "depth_multiplier": 1,
            "depthwise_initializer": _INITIALIZER, "depthwise_regularizer": None, "depthwise_constraint": None,
        }  # fmt: skip
        return self.add(name, "DepthwiseConv2D", config, [self.x], self.width, weights)

    def bn(self, name: str, *, momentum: float = 0.99) -> str:
        """BatchNormalization, where the model has any."""
        if not self.batch_norm:
            return self.x
        random, width = self.file.random, self.width
        weights = [
            ("gamma", random.uniform(0.5, 1.5, width)),
            ("beta", random.normal(self.beta, 0.2, width)),
            ("moving_mean", random.normal(0, 0.3, width)),
            ("moving_variance", random.uniform(0.5, 1.5, width)),
        ]
        config = {
            "axis": 1, "momentum": momentum, "epsilon": 0.001, "center": True, "scale": True,
            "beta_initializer": {"class_name": "Zeros", "config": {}},
            "gamma_initializer": {"class_name": "Ones", "config": {}},
            "moving_mean_initializer": {"class_name": "Zeros", "config": {}},
            "moving_variance_initializer": {"class_name": "Ones", "config": {}},
            "beta_regularizer": None, "gamma_regularizer": None, "beta_constraint": None, "gamma_constraint": None,
        }  # fmt: skip
        self.add(name, "BatchNormalization", config, [self.x], width, weights)
        if self.frozen:
            self.file.layers[-1]["inbound_nodes"][0][0][3] = {"training": False}
        return self.x

    def activation(self, name: str = "", function: str = "relu") -> str:
        return self.add(name, "Activation", {"activation": function}, [self.x], self.width)

    def relu(self, name: str) -> str:
        config = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
        return self.add(name, "ReLU", config, [self.x], self.width)

    def leaky(self, name: str) -> str:
        # float32's 0.1, as Keras 2.2.4 writes it
        return self.add(name, "LeakyReLU", {"alpha": 0.10000000149011612}, [self.x], self.width)

    def pool(self, name: str, size: int, stride: int, *, class_name: str = "MaxPooling2D", feed: str = "") -> str:
        feed = feed or self.x
        config = {
            "pool_size": [size, size], "padding": "same", "strides": [stride, stride], "data_format": "channels_first",
        }  # fmt: skip
        return self.add(name, class_name, config, [feed], self.widths[feed])

    def pad(self, name: str, sides: list[list[int]] | None = None) -> str:
        config = {"padding": sides or [[1, 1], [1, 1]], "data_format": "channels_first"}
        return self.add(name, "ZeroPadding2D", config, [self.x], self.width)

    def sum(self, feeds: list[str], name: str = "") -> str:
        return self.add(name, "Add", {}, feeds, self.widths[feeds[0]])

    def join(self, feeds: list[str], name: str) -> str:
        return self.add(name, "Concatenate", {"axis": 1}, feeds, sum(self.widths[feed] for feed in feeds))
