"""Random small DetectNet graphs from TAO's layer vocabulary, for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from keras_files import KerasFile

KERNELS = st.tuples(st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 2, 3, 5]))
STRIDES = st.tuples(st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 1, 2]))
PADDING = st.sampled_from(["same", "valid"])
ACTIVATIONS = st.sampled_from(["linear", "relu", "sigmoid", "swish", "tanh"])
KINDS = st.sampled_from(
    [
        "Conv2D", "DepthwiseConv2D", "BatchNormalization", "Activation", "ReLU", "LeakyReLU", "MaxPooling2D",
        "AveragePooling2D", "ZeroPadding2D", "Add", "Concatenate", "Multiply", "squeeze_excite", "Dropout",
        "QDQ", "QuantizedConv2D", "QuantizedDepthwiseConv2D",
    ]
)  # fmt: skip


def _grow(draw: st.DrawFn, file: KerasFile, feed: str, channels: int, index: int) -> tuple[str, int]:
    """Put one random piece of a TAO template behind `feed`; return the new end and its channels."""
    kind, name = draw(KINDS), f"layer_{index}"
    if kind in ("Conv2D", "QuantizedConv2D"):
        filters = draw(st.integers(1, 6))
        file.conv(
            name, feed, channels, filters, kernel=draw(KERNELS), strides=draw(STRIDES), padding=draw(PADDING),
            dilation=draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2)])), activation=draw(ACTIVATIONS),
            use_bias=draw(st.booleans()), class_name=kind,
        )  # fmt: skip
        return name, filters
    if kind in ("DepthwiseConv2D", "QuantizedDepthwiseConv2D"):
        multiplier = draw(st.sampled_from([1, 1, 2]))
        file.depthwise(
            name, feed, channels, kernel=draw(KERNELS), strides=draw(STRIDES), padding=draw(PADDING),
            multiplier=multiplier, use_bias=draw(st.booleans()), activation=draw(ACTIVATIONS), class_name=kind,
        )  # fmt: skip
        return name, channels * multiplier
    if kind == "BatchNormalization":
        file.batch_norm(name, feed, channels)
        if draw(st.booleans()):  # TAO's freeze_bn
            file.layers[-1]["inbound_nodes"][0][0][3] = {"training": False}
        return name, channels
    if kind == "QDQ":
        return file.layer(name, kind, {"bitwidth": 8}, [feed], [("scaling_factor", np.array(3.0))]), channels
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        pool = draw(st.sampled_from([[2, 2], [3, 3], [3, 2], [7, 7]]))
        config = {"pool_size": pool, "strides": list(draw(STRIDES)), "padding": draw(PADDING)}
        return file.layer(name, kind, config, [feed]), channels
    if kind == "ZeroPadding2D":
        sides = draw(st.tuples(*[st.integers(0, 2)] * 4))
        padding = [list(sides[:2]), list(sides[2:])]
        return file.layer(name, kind, {"padding": padding}, [feed]), channels
    if kind in ("Add", "Multiply", "Concatenate"):
        other = file.conv(f"{name}_side", feed, channels, channels, kernel=(3, 3))
        third = [feed] if draw(st.booleans()) else []
        file.layer(name, kind, {"axis": 1} if kind == "Concatenate" else {}, [feed, other, *third])
        return name, channels * (2 + len(third)) if kind == "Concatenate" else channels
    if kind == "squeeze_excite":
        pooled = file.layer(f"{name}_pool", "GlobalAveragePooling2D", {}, [feed])
        shaped = file.layer(f"{name}_shape", "Reshape", {"target_shape": [-1, 1, 1]}, [pooled])
        gate = file.conv(f"{name}_gate", shaped, channels, channels, kernel=(1, 1), activation="sigmoid")
        return file.layer(name, "Multiply", {}, [feed, gate]), channels
    config = {
        "Activation": {"activation": draw(ACTIVATIONS)},
        "ReLU": {"max_value": draw(st.sampled_from([None, 6.0, 1.0]))},
        "LeakyReLU": {"alpha": draw(st.sampled_from([0.1, {"class_name": "__ndarray__", "value": 0.2}]))},
    }.get(kind, {})
    return file.layer(name, kind, config, [feed]), channels


@st.composite
def graphs(draw: st.DrawFn) -> KerasFile:
    size = draw(st.tuples(st.sampled_from([1, 3]), st.integers(9, 40), st.integers(9, 40)))
    file = KerasFile(input_chw=size, seed=draw(st.integers(0, 9)))
    feed, channels = file.input, size[0]
    for index in range(draw(st.integers(1, 6))):
        feed, channels = _grow(draw, file, feed, channels, index)
        assume(channels <= 64)
    file.heads(feed, channels, classes=draw(st.integers(1, 3)))
    return file
