"""TAO's Keras forward pass in plain numpy: the fp32 numbers an artifact must equal.

Written from the rules (docs/tao.md) and sharing nothing with the ONNX writer but the reading
of the file, so that one mistake cannot hide in both. Arrays are (N, C, H, W) float32. A convolution is one
matrix product for each band of rows: slower than onnxruntime, fast and small enough for parity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tao2serve.runtime.candidates import BoxEncoding, absolute_boxes
from tao2serve.runtime.values import DetectorParams
from tao2serve.tao.keras import Array, KerasLayer, KerasModel

__all__ = ["Outputs", "forward", "layer_outputs"]

_BAND_ELEMENTS = 1 << 21  # windows copied at a time: 8 MB, whatever the image

_Taps = Iterator[tuple[int, int, Array]]  # kernel row, kernel column, what that position sees


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a detector says about N images: coverage (N, classes, h, w), bbox (N, 4 * classes, h, w).

    `boxes` says what bbox holds: the network's offsets, or boxes in network pixels that its graph has decoded.
    """

    coverage: Array
    bbox: Array
    boxes: BoxEncoding = "offsets"

    def in_pixels(self, params: DetectorParams) -> Array:
        """Return the boxes (N, 4 * classes, h, w) in network pixels, decoded here if the graph did not."""
        return self.bbox if self.boxes == "absolute" else np.stack([absolute_boxes(grid, params) for grid in self.bbox])


def forward(model: KerasModel, images: Array) -> Outputs:
    """Run the model on images (N, C, H, W) in [0, 1]. Raises InputError for a layer it does not know."""
    coverage = bbox = None
    for name, value in layer_outputs(model, images):
        if name == model.coverage:
            coverage = value
        if name == model.bbox:
            bbox = value
    assert coverage is not None  # KerasModel.coverage names a layer of the model
    assert bbox is not None
    return Outputs(coverage=coverage, bbox=bbox)


def layer_outputs(model: KerasModel, images: Array) -> Iterator[tuple[str, Array]]:
    """Yield each layer's name and result in the order they run; results nobody needs any more are let go.

    Images of float64 are computed in float64.
    """
    last_use = {name: index for index, layer in enumerate(model.layers) for name in layer.inbound}
    alive: dict[str, Array] = {}
    for index, layer in enumerate(model.layers):
        if layer.class_name == "InputLayer":
            result = images if images.dtype == np.float64 else np.asarray(images, dtype=np.float32)
        else:
            result = _run(layer, tuple(alive[name] for name in layer.inbound))
        alive[layer.name] = result
        yield layer.name, result
        for name in layer.inbound:
            if last_use[name] == index:
                alive.pop(name, None)


def _run(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    rule = _RULES.get(layer.class_name)
    if rule is None:
        layer.fail(f"is a {layer.class_name}, which the reference does not know")
    if not inputs:
        layer.fail("has no input")
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # damaged weights overflow; what comes out tells
            return rule(layer, inputs)
    except MemoryError as error:
        layer.fail("needs more memory than there is", evidence=str(error)[:200])
    except (ValueError, IndexError) as error:  # numpy, when shapes do not fit
        layer.fail("does not fit its inputs", evidence=f"{[x.shape for x in inputs]}: {error}"[:300])


def _zeros_around(x: Array, top: int, bottom: int, left: int, right: int) -> Array:
    if not (top or bottom or left or right):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def _window_count(
    x: Array, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """How many whole windows fit into x: (rows, columns)."""
    rows, columns = (
        (size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, strides, dilation, strict=True)
    )
    return rows, columns


def _taps(x: Array, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]) -> _Taps:
    """Slide a window over x without copying: for each position in it, the (N, C, oh, ow) values it meets."""
    rows, columns = _window_count(x, kernel, strides, dilation)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            yield (
                i,
                j,
                x[
                    :,
                    :,
                    top : top + (rows - 1) * strides[0] + 1 : strides[0],
                    left : left + (columns - 1) * strides[1] + 1 : strides[1],
                ],
            )


def _conv(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    """TAO's patched `same`: ((k - 1) * dilation + 1) // 2 zeros on both sides, then `valid`."""
    kernel, strides, dilation = (layer.pair(key, 1) for key in ("kernel_size", "strides", "dilation_rate"))
    vertical, horizontal = (
        ((k - 1) * d + 1) // 2 if layer.text("padding", "valid") == "same" else 0
        for k, d in zip(kernel, dilation, strict=True)
    )
    x = _zeros_around(inputs[0], vertical, vertical, horizontal, horizontal)
    return _finish(layer, _correlate(x, layer.weights[0].values, kernel, strides, dilation))


def _correlate(
    x: Array, weights: Array, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]
) -> Array:
    """Slide weights (kh, kw, in, out) over x (N, in, H, W): a matrix product for each band of output rows."""
    count, channels = x.shape[:2]
    if weights.shape[:-1] != (*kernel, channels):
        raise ValueError(f"weights {weights.shape}, kernel {kernel}")
    matrix = weights.reshape(-1, weights.shape[-1]).T
    rows, columns = _window_count(x, kernel, strides, dilation)
    result = np.empty((count, weights.shape[-1], rows, columns), x.dtype)
    reach = (kernel[0] - 1) * dilation[0] + 1  # rows of x that one output row meets
    height = max(1, _BAND_ELEMENTS // max(1, matrix.shape[1] * columns))
    for top in range(0, rows, height):
        bottom = min(top + height, rows)
        seen = x[:, :, top * strides[0] : (bottom - 1) * strides[0] + reach]
        band = np.empty((count, kernel[0] * kernel[1], channels, bottom - top, columns), x.dtype)
        for place, (_, _, values) in enumerate(_taps(seen, kernel, strides, dilation)):
            band[:, place] = values
        product = np.matmul(matrix, band.reshape(count, matrix.shape[1], -1))
        result[:, :, top:bottom] = product.reshape(count, -1, bottom - top, columns)
    return result


def _depthwise(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    """Not patched: TensorFlow's `same`, where an odd number of zeros puts the larger half at the end."""
    kernel, strides, dilation = (layer.pair(key, 1) for key in ("kernel_size", "strides", "dilation_rate"))
    x = inputs[0]
    if layer.text("padding", "valid") == "same":
        sides: list[int] = []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilation, strict=True):
            wanted = int(np.ceil(size / s))
            missing = max(0, (wanted - 1) * s + (k - 1) * d + 1 - size)
            sides += [missing // 2, missing - missing // 2]
        x = _zeros_around(x, *sides)
    weights = layer.weights[0].values  # (kh, kw, in, multiplier)
    total: Array | None = None
    for i, j, seen in _taps(x, kernel, strides, dilation):
        product = seen[:, :, None] * weights[i, j][None, :, :, None, None]
        total = product if total is None else np.add(total, product, out=total)
    assert total is not None
    n, channels, multiplier, height, width = total.shape
    return _finish(layer, total.reshape(n, channels * multiplier, height, width))


def _finish(layer: KerasLayer, x: Array) -> Array:
    """Add the bias to x in place, then apply the activation a convolution may carry."""
    if layer.flag("use_bias", default=True):
        x += layer.weights[1].values[None, :, None, None]
    return _activate(layer, x)


def _activate(layer: KerasLayer, x: Array) -> Array:
    name = layer.text("activation", "linear")
    if name not in _ACTIVATIONS:
        layer.fail(f"has an activation the reference does not know: {name[:60]}")
    return _ACTIVATIONS[name](x)


def _sigmoid(x: Array) -> Array:
    half = np.float32(0.5)  # by tanh, which cannot overflow
    result: Array = half * (np.tanh(half * x) + np.float32(1))
    return result


def _batch_norm(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, channel by channel."""
    values = [weight.values for weight in layer.weights]
    gamma = values.pop(0) if layer.flag("scale", default=True) else np.float32(1)
    beta = values.pop(0) if layer.flag("center", default=True) else np.float32(0)
    mean, variance = values
    epsilon = np.float32(layer.number("epsilon", 1e-3) or 0)
    factor = np.broadcast_to(gamma / np.sqrt(variance + epsilon), mean.shape)
    shift = np.broadcast_to(beta, mean.shape)
    each = (1, -1) + (1,) * (inputs[0].ndim - 2)
    result: Array = inputs[0] - mean.reshape(each)
    result *= factor.reshape(each)  # in place: on the first layers each copy is the largest array of all
    result += shift.reshape(each)
    return result


def _pool(layer: KerasLayer, inputs: tuple[Array, ...], combine: Callable[[Array, Array], Array]) -> Array:
    """TAO's patched `same`: (p - 1) // 2 zeros on both sides, and they take part like any other value."""
    pool = layer.pair("pool_size")
    strides = layer.pair("strides") if layer.config.get("strides") is not None else pool
    vertical, horizontal = ((p - 1) // 2 if layer.text("padding", "valid") == "same" else 0 for p in pool)
    x = _zeros_around(inputs[0], vertical, vertical, horizontal, horizontal)
    total: Array | None = None
    for _, _, seen in _taps(x, pool, strides, (1, 1)):
        total = seen.copy() if total is None else combine(total, seen)
    assert total is not None
    return total


def _max_pool(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    return _pool(layer, inputs, np.maximum)


def _average_pool(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    height, width = layer.pair("pool_size")
    return _pool(layer, inputs, np.add) / np.float32(height * width)


def _zero_padding(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    return _zeros_around(inputs[0], *layer.padding_sides())


def _leaky_relu(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    alpha = np.float32(layer.number("alpha", 0.3) or 0)
    return np.where(inputs[0] > 0, inputs[0], alpha * inputs[0])


def _relu(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    limit = layer.number("max_value", None)
    return np.clip(inputs[0], 0, None if limit is None else np.float32(limit))


def _reshape(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    target = [-1 if item is None else item for item in layer.integers("target_shape")]
    return inputs[0].reshape(inputs[0].shape[0], *target)


def _add(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    total = inputs[0]
    for other in inputs[1:]:
        total = total + other
    return total


def _multiply(layer: KerasLayer, inputs: tuple[Array, ...]) -> Array:
    total = inputs[0]
    for other in inputs[1:]:
        total = total * other
    return total


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": lambda x: np.clip(x, np.float32(0), np.float32(6)),
    "sigmoid": _sigmoid,
    "swish": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}

_RULES: Mapping[str, Callable[[KerasLayer, tuple[Array, ...]], Array]] = {
    "Activation": lambda layer, inputs: _activate(layer, inputs[0]),
    "Add": _add,
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concatenate": lambda layer, inputs: np.concatenate(inputs, axis=1),
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "Dropout": lambda layer, inputs: inputs[0],
    "GlobalAveragePooling2D": lambda layer, inputs: inputs[0].mean(axis=(2, 3)),
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _max_pool,
    "Multiply": _multiply,
    "QDQ": lambda layer, inputs: inputs[0],
    "QuantizedConv2D": _conv,
    "QuantizedDepthwiseConv2D": _depthwise,
    "ReLU": _relu,
    "Reshape": _reshape,
    "SpatialDropout2D": lambda layer, inputs: inputs[0],
    "ZeroPadding2D": _zero_padding,
}
