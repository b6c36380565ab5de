"""Conv2D and DepthwiseConv2D, plain or quantization-aware, each with the activation it may carry."""

from __future__ import annotations

import numpy as np

from tao2serve.export.graph.activations import activation
from tao2serve.export.graph.fragment import Fragment, Value, check_size, constant, node, only, padding_of
from tao2serve.export.graph.geometry import Pads, conv_pads, depthwise_pads, window_size
from tao2serve.tao.keras import KerasLayer

__all__ = ["convolution", "depthwise"]


def convolution(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """Conv2D, and its quantization-aware twin with the raw float kernel, as TAO's exporter does it."""
    source = only(layer, inputs)
    channels = source.image_shape(layer)[0]
    kernel, dilation = layer.pair("kernel_size"), layer.pair("dilation_rate", 1)
    filters = layer.pair("filters")[0]
    pads = conv_pads(padding_of(layer), kernel, dilation)
    weights = layer.weight(0, (*kernel, channels, filters), "kernel")
    return _convolve(
        layer,
        source,
        pads,
        kernel,
        dilation,
        weights=np.transpose(weights, (3, 2, 0, 1)),
        groups=1,
        tensorflow_op="convolution",
    )


def depthwise(layer: KerasLayer, inputs: tuple[Value, ...]) -> Fragment:
    """DepthwiseConv2D: one group a channel; TensorFlow orders the results channel-major."""
    source = only(layer, inputs)
    channels, height, width = source.image_shape(layer)
    kernel, dilation = layer.pair("kernel_size"), layer.pair("dilation_rate", 1)
    multiplier = layer.pair("depth_multiplier", 1)[0]
    pads = depthwise_pads(padding_of(layer), (height, width), kernel, layer.pair("strides", 1), dilation)
    weights = layer.weight(0, (*kernel, channels, multiplier), "kernel")
    return _convolve(
        layer,
        source,
        pads,
        kernel,
        dilation,
        weights=np.transpose(weights, (2, 3, 0, 1)).reshape(channels * multiplier, 1, *kernel),
        groups=channels,
        tensorflow_op="depthwise",
    )


def _convolve(
    layer: KerasLayer,
    source: Value,
    pads: Pads,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    *,
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    groups: int,
    tensorflow_op: str,
) -> Fragment:
    strides = layer.pair("strides", 1)
    biased = layer.flag("use_bias", default=True)
    # QuantizedConv2D keeps the range of its weights behind kernel and bias; a float export has no use for it.
    if not layer.class_name.startswith("Quantized"):
        layer.expect_weights(1 + biased)
    constants = [constant(layer, "kernel", weights)]
    if biased:
        constants.append(constant(layer, "bias", layer.weight(1, (weights.shape[0],), "bias")))
    channels, height, width = source.image_shape(layer)
    # A stride may hide how large the padded input is, which some programs write out.
    check_size(layer, (channels, height + pads.top + pads.bottom, width + pads.left + pads.right))
    made = node(
        layer,
        "Conv",
        (source.name, *(x.name for x in constants)),
        "BiasAdd" if biased else tensorflow_op,
        (weights.shape[0], *window_size((height, width), pads, kernel, strides, dilation)),
        constants=tuple(constants),
        attributes={
            "kernel_shape": list(kernel),
            "strides": list(strides),
            "dilations": list(dilation),
            "pads": list(pads),
            "group": groups,
        },
    )
    return made.then(activation(layer, made.result, layer.text("activation", "linear")))
