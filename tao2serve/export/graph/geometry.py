"""TAO's padding and sizes. TAO patches Keras, so a stock reading of `same` gives wrong numbers.

Sizes recorded in the file come from Keras's unpatched shape inference and are not used (docs/tao.md): on odd
inputs they are off by one. Everything is (height, width).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Pads", "conv_pads", "depthwise_pads", "pool_pads", "window_size"]

Size = tuple[int, int]


class Pads(NamedTuple):
    """Zeros added on each side; the order is ONNX's `pads` for two spatial axes."""

    top: int
    left: int
    bottom: int
    right: int


def conv_pads(padding: str, kernel: Size, dilation: Size) -> Pads:
    """Conv2D in TAO: `same` pads both sides alike, whatever the stride; an even kernel grows the output."""
    if padding == "valid":
        return Pads(0, 0, 0, 0)
    height, width = (((k - 1) * d + 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return Pads(height, width, height, width)


def pool_pads(padding: str, pool: Size) -> Pads:
    """Max- and AveragePooling2D in TAO: `same` pads both sides alike with zeros that take part."""
    if padding == "valid":
        return Pads(0, 0, 0, 0)
    height, width = ((p - 1) // 2 for p in pool)
    return Pads(height, width, height, width)


def depthwise_pads(padding: str, size: Size, kernel: Size, strides: Size, dilation: Size) -> Pads:
    """DepthwiseConv2D is not patched: TensorFlow's `same`, the odd zero at the end."""
    if padding == "valid":
        return Pads(0, 0, 0, 0)
    before: list[int] = []
    after: list[int] = []
    for length, k, s, d in zip(size, kernel, strides, dilation, strict=True):
        total = max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return Pads(before[0], before[1], after[0], after[1])


def window_size(size: Size, pads: Pads, window: Size, strides: Size, dilation: Size = (1, 1)) -> Size:
    """Return how many whole windows fit, which may be less than 1 for the caller to refuse."""
    height = (size[0] + pads.top + pads.bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    width = (size[1] + pads.left + pads.right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    return height, width
