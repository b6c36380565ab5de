"""Write a network as the HDF5 file TAO's Keras 2.2.4 would have saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from network import DetectNet, NetworkPlan

__all__ = ["model_config", "write_hdf5"]

_ASCII = h5py.string_dtype("ascii")
_KERAS_VERSION, _BACKEND = b"2.2.4", b"tensorflow"


def _initializer(name: str, **config: object) -> dict[str, object]:
    return {"class_name": name, "config": config}


def _conv(
    name: str,
    source: str,
    *,
    filters: int,
    kernel: int,
    stride: int,
    regularizer: float,
    padding: str = "same",
    activation: str = "linear",
) -> dict[str, Any]:
    penalty = {"class_name": "L1L2", "config": {"l1": regularizer, "l2": 0.0}}
    config = {
        "name": name,
        "trainable": True,
        "filters": filters,
        "kernel_size": [kernel, kernel],
        "strides": [stride, stride],
        "padding": padding,
        "data_format": "channels_first",
        "dilation_rate": [1, 1],
        "activation": activation,
        "use_bias": True,
        "kernel_initializer": _initializer(
            "VarianceScaling", scale=2.0, mode="fan_in", distribution="normal", seed=None
        ),
        "bias_initializer": _initializer("Zeros"),
        "kernel_regularizer": penalty,
        "bias_regularizer": penalty,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
    }
    return _layer("Conv2D", config, source)


def _norm(name: str, source: str) -> dict[str, Any]:
    config = {
        "name": name,
        "trainable": True,
        "axis": 1,
        "momentum": 0.99,
        "epsilon": 0.001,
        "center": True,
        "scale": True,
        "beta_initializer": _initializer("Zeros"),
        "gamma_initializer": _initializer("Ones"),
        "moving_mean_initializer": _initializer("Zeros"),
        "moving_variance_initializer": _initializer("Ones"),
        "beta_regularizer": None,
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": None,
    }
    return _layer("BatchNormalization", config, source)


def _relu(name: str, source: str) -> dict[str, Any]:
    return _layer("Activation", {"name": name, "trainable": True, "activation": "relu"}, source)


def _layer(class_name: str, config: dict[str, Any], *sources: str) -> dict[str, Any]:
    inbound = [[[source, 0, 0, {}] for source in sources]] if sources else []
    return {"name": config["name"], "class_name": class_name, "config": config, "inbound_nodes": inbound}


def _layers(plan: NetworkPlan, regularizer: float) -> Iterator[dict[str, Any]]:
    """All layers in the order in which Keras saves them: by depth, main path before shortcut."""
    shape = [None, *plan.input_chw]
    yield _layer("InputLayer", {"batch_input_shape": shape, "dtype": "float32", "sparse": False, "name": "input_1"})
    yield _conv("conv1", "input_1", filters=plan.stem, kernel=7, stride=2, regularizer=regularizer)
    yield _norm("bn_conv1", "conv1")
    yield _relu("activation_1", "bn_conv1")
    source = "activation_1"
    for b in plan.blocks:
        n = b.name
        yield _conv(f"{n}_conv_1", source, filters=b.hidden, kernel=3, stride=b.stride, regularizer=regularizer)
        yield _norm(f"{n}_bn_1", f"{n}_conv_1")
        yield _relu(f"{n}_relu_1", f"{n}_bn_1")
        yield _conv(f"{n}_conv_2", f"{n}_relu_1", filters=b.out, kernel=3, stride=1, regularizer=regularizer)
        yield _conv(
            f"{n}_conv_shortcut",
            source,
            filters=b.out,
            kernel=1,
            stride=b.stride,
            regularizer=regularizer,
            padding="valid",
        )
        yield _norm(f"{n}_bn_2", f"{n}_conv_2")
        yield _norm(f"{n}_bn_shortcut", f"{n}_conv_shortcut")
        yield _layer("Add", {"name": b.add_name, "trainable": True}, f"{n}_bn_2", f"{n}_bn_shortcut")
        yield _relu(f"{n}_relu", b.add_name)
        source = f"{n}_relu"
    yield _conv("output_bbox", source, filters=4 * plan.classes, kernel=1, stride=1, regularizer=regularizer)
    yield _conv(
        "output_cov", source, filters=plan.classes, kernel=1, stride=1, regularizer=regularizer, activation="sigmoid"
    )


def model_config(plan: NetworkPlan, *, regularizer: float) -> dict[str, Any]:
    """Return the `model_config` document: the graph as Keras' functional API describes it."""
    return {
        "class_name": "Model",
        "config": {
            "name": plan.name,
            "layers": list(_layers(plan, regularizer)),
            "input_layers": [["input_1", 0, 0]],
            "output_layers": [["output_bbox", 0, 0], ["output_cov", 0, 0]],
        },
    }


def _weights(network: DetectNet, layer: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Return the layer's weights in Keras' order: kernel HWIO, bias; or gamma, beta, moving mean and variance."""
    name = layer["name"]
    if name not in network.layers:
        return []
    module = {k: v.detach().float().numpy() for k, v in network.layers[name].state_dict().items()}
    if layer["class_name"] == "Conv2D":
        return [("kernel:0", module["weight"].transpose(2, 3, 1, 0)), ("bias:0", module["bias"])]
    return [
        ("gamma:0", module["weight"]),
        ("beta:0", module["bias"]),
        ("moving_mean:0", module["running_mean"]),
        ("moving_variance:0", module["running_var"]),
    ]


def write_hdf5(network: DetectNet, path: Path, *, regularizer: float, scope_suffix: str = "") -> None:
    """Write the file `Model.save(include_optimizer=False)` would; nothing in it says who trained it.

    `scope_suffix` goes into the weight names: a model that Keras loaded and saved again has `conv1_1/kernel:0`
    under the layer `conv1`, and a reader has to follow `weight_names` to find it.
    """
    config = model_config(network.plan, regularizer=regularizer)
    layers = config["config"]["layers"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.create("keras_version", _KERAS_VERSION, dtype=_ASCII)
        file.attrs.create("backend", _BACKEND, dtype=_ASCII)
        file.attrs.create("model_config", json.dumps(config).encode(), dtype=_ASCII)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.asarray([layer["name"].encode() for layer in layers])
        group.attrs.create("backend", _BACKEND, dtype=_ASCII)
        group.attrs.create("keras_version", _KERAS_VERSION, dtype=_ASCII)
        for layer in layers:
            scope, own = layer["name"] + scope_suffix, group.create_group(layer["name"])
            weights = _weights(network, layer)
            names = [f"{scope}/{weight}" for weight, _ in weights]
            own.attrs["weight_names"] = np.asarray([n.encode() for n in names]) if names else np.zeros(0)
            for name, (_, values) in zip(names, weights, strict=True):
                own.create_dataset(name, data=np.ascontiguousarray(values, dtype=np.float32))
