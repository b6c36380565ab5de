"""A second opinion on a written HDF5 file: its graph run with numpy alone, from what the file says.

It shares no code with the network or the writer. Slow; meant for one or two pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["run_hdf5"]


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Convolve (N, C, H, W) with an HWIO kernel; `same` is TAO's: (k - 1 + 1) // 2 zeros on both sides."""
    k, stride = config["kernel_size"][0], config["strides"][0]
    if config["padding"] == "same":
        pad = k // 2
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ijco->nohw", windows, kernel, optimize=True) + bias[:, None, None]


def _apply(layer: dict[str, Any], inputs: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    config, kind = layer["config"], layer["class_name"]
    if kind == "Conv2D":
        result = _convolve(inputs[0], weights[0], weights[1], config)
        return 1 / (1 + np.exp(-result)) if config["activation"] == "sigmoid" else result
    if kind == "BatchNormalization":
        gamma, beta, mean, variance = (w[:, None, None] for w in weights)
        return (inputs[0] - mean) / np.sqrt(variance + config["epsilon"]) * gamma + beta
    if kind == "Activation":
        return np.maximum(inputs[0], 0)
    if kind == "Add":
        return inputs[0] + inputs[1]
    raise ValueError(f"{layer['name']}: no rule for a {kind} layer")


def run_hdf5(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run (N, C, H, W) in [0, 1] in float64; return coverage (N, K, h, w) and bbox (N, 4K, h, w)."""
    with h5py.File(path) as file:
        graph = json.loads(file.attrs["model_config"])["config"]
        tensors: dict[str, np.ndarray] = {}
        for layer in graph["layers"]:
            if layer["class_name"] == "InputLayer":
                tensors[layer["name"]] = images.astype(np.float64)
                continue
            group = file["model_weights"][layer["name"]]
            weights = [group[name][()].astype(np.float64) for name in group.attrs["weight_names"]]
            inputs = [tensors[node[0]] for node in layer["inbound_nodes"][0]]
            tensors[layer["name"]] = _apply(layer, inputs, weights)
    return tensors["output_cov"], tensors["output_bbox"]
