"""TAO's padding, number by number."""

from __future__ import annotations

import pytest

from tao2serve.export.graph.geometry import conv_pads, depthwise_pads, pool_pads, window_size


@pytest.mark.parametrize(("kernel", "pad"), [(1, 0), (2, 1), (3, 1), (5, 2), (7, 3)])
def test_convolution_same_is_symmetric(kernel: int, pad: int) -> None:
    """`same` pads both sides by half the kernel, also an even one, whatever the stride."""
    assert conv_pads("same", (kernel, kernel), (1, 1)) == (pad, pad, pad, pad)
    assert conv_pads("valid", (kernel, kernel), (1, 1)) == (0, 0, 0, 0)


def test_dilation_widens_the_padding() -> None:
    """A dilated kernel pads as much as the extent it covers asks for."""
    assert conv_pads("same", (3, 3), (2, 3)) == (2, 3, 2, 3)


@pytest.mark.parametrize(("pool", "pad"), [(2, 0), (3, 1), (7, 3)])
def test_pooling_same_rounds_down(pool: int, pad: int) -> None:
    """`same` pads (p − 1) / 2, so a 2 × 2 pool on an odd size loses the last row."""
    pads = pool_pads("same", (pool, pool))
    assert pads == (pad, pad, pad, pad)
    assert window_size((7, 9), pool_pads("same", (2, 2)), (2, 2), (2, 2)) == (3, 4)


def test_stride_of_resnet_with_pooling() -> None:
    """A 7 × 7 average pool at the end gives stride 224 = 32 · 7."""
    assert window_size((17, 30), pool_pads("same", (7, 7)), (7, 7), (7, 7)) == (3, 5)


def test_depthwise_keeps_tensorflows_same() -> None:
    """The odd zero goes to the end, and the size is the ceiling of size / stride."""
    pads = depthwise_pads("same", (8, 7), (3, 3), (2, 2), (1, 1))
    assert pads == (0, 1, 1, 1)
    assert window_size((8, 7), pads, (3, 3), (2, 2)) == (4, 4)


def test_odd_sizes_follow_the_arithmetic() -> None:
    """At odd inputs the symmetric padding decides, not the ceiling Keras records."""
    assert window_size((33, 47), conv_pads("same", (2, 2), (1, 1)), (2, 2), (1, 1)) == (34, 48)
    assert window_size((33, 47), conv_pads("same", (7, 7), (1, 1)), (7, 7), (2, 2)) == (17, 24)
