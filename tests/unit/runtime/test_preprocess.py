"""Image bytes to tensor: TAO's numbers by default, nearly the same ones fast, and one channel as TAO makes it."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import numpy as np
import pytest
from image_files import encode, params, picture
from PIL import Image

from tao2serve.runtime import preprocess, resize
from tao2serve.runtime.image import decode, read
from tao2serve.runtime.preprocess import (
    LUMA,
    LUMA_ROUND,
    LUMA_UNIT,
    RESIZE_MODES,
    ResizeMode,
    read_pixels,
    to_tensor,
)

SIZES = [(200, 100), (160, 96), (161, 97), (80, 48), (77, 46), (40, 24), (100, 90), (1000, 47), (643, 481), (7, 5)]


@pytest.fixture(params=["opencv", "pillow"])
def resizer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with OpenCV, if it is there, and without it."""
    if request.param == "opencv":
        pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    else:
        monkeypatch.setattr(resize, "opencv", lambda: None)
    return str(request.param)


def nvidia(body: bytes, *, width: int = 80, height: int = 48) -> np.ndarray:
    """What nvidia-tao-deploy 7.3.0 feeds the network (cv/detectnet_v2/dataloader.py), written anew."""
    image = Image.open(io.BytesIO(body)).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return np.transpose(np.asarray(image, dtype=np.float32) / 255.0, (2, 0, 1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_the_default_is_nvidias_tensor_bit_for_bit(kind: str, size: tuple[int, int]) -> None:
    """RGB, channels first, resized by PIL LANCZOS without keeping the aspect ratio, divided by 255."""
    body = encode(picture(*size), format=kind)
    tensor, found = preprocess(body, params())
    assert found == size
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, nvidia(body))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_colours_are_nvidias_tensor_too(mode: str) -> None:
    """Gray, transparency, palettes and one bit become what convert("RGB") makes of them; alpha is ignored."""
    image = picture().convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(picture().convert("L"))
    body = encode(image)
    np.testing.assert_array_equal(preprocess(body, params())[0], nvidia(body))


def test_cmyk_is_nvidias_tensor_too() -> None:
    """Photoshop stores CMYK upside down, and says so; Pillow writes and reads it the same way."""
    body = encode(picture().convert("CMYK"), format="JPEG")
    tensor, _ = preprocess(body, params())
    np.testing.assert_array_equal(tensor, nvidia(body))
    wanted = np.asarray(picture().resize((80, 48)), np.float32).transpose(2, 0, 1) / 255
    assert np.abs(tensor - wanted).mean() < 0.03


def test_gray_networks_get_the_luma_of_taos_inferencer(resizer: str) -> None:
    """TAO 5 resizes in colour and takes Pillow's L of the result; tao_deploy's own gray path raises."""
    body = encode(picture(), format="JPEG")
    resized = Image.open(io.BytesIO(body)).convert("RGB").resize((80, 48), Image.Resampling.LANCZOS)
    wanted = np.asarray(resized.convert("L")).astype(np.float32)[None] / 255.0
    np.testing.assert_array_equal(preprocess(body, params(channels=1))[0], wanted)
    fast, _ = preprocess(body, params(channels=1), mode="fast")
    assert fast.shape == (1, 48, 80)
    assert np.abs(fast - wanted).max() < 0.03


def test_the_luma_is_exact_in_float32() -> None:
    """From LUMA a graph of float32 operators gives the very bits of `to_tensor`, in whatever order it adds."""
    values = np.random.default_rng(1).integers(0, 256, (999, 1000, 3), dtype=np.uint8)
    values[:64, :4] = np.array(list(itertools.product((0, 1, 254, 255), repeat=3)), np.uint8)[:, None]
    wide = values.astype(np.float32)
    for order in itertools.permutations(range(3)):
        total = np.float32(LUMA_ROUND) + sum(wide[..., channel] * np.float32(LUMA[channel]) for channel in order)
        assert total.dtype == np.float32
        luma = np.floor(total / np.float32(LUMA_UNIT)) / np.float32(255.0)
        np.testing.assert_array_equal(luma[None], to_tensor(values, params(channels=1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tensor_is_its_pixels_over_255(channels: int) -> None:
    """`preprocess` is `read_pixels` and `to_tensor`, in each mode; pixels are (H, W, 3) of the network's size."""
    body = encode(picture(), format="JPEG")
    for mode in RESIZE_MODES:
        pixels, size = read_pixels(body, params(channels=channels), mode=mode)
        assert pixels.shape == (48, 80, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        tensor, same_size = preprocess(body, params(channels=channels), mode=mode)
        assert size == same_size == (200, 100)
        np.testing.assert_array_equal(tensor, to_tensor(pixels, params(channels=channels)))
        if channels == 3:
            np.testing.assert_array_equal(tensor, pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255))


@pytest.mark.parametrize("size", [*SIZES, (1500, 850), (1, 1), (1, 700), (5000, 3)], ids=str)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_fast_is_close_to_lanczos(resizer: str, kind: str, size: tuple[int, int]) -> None:
    """From any size, on a smooth picture: half a level of 255 on average, and nowhere far off."""
    body = encode(picture(*size), format=kind, **({"quality": 95} if kind == "JPEG" else {}))
    exact, _ = read_pixels(body, params())
    fast, found = read_pixels(body, params(), mode="fast")
    assert found == size
    assert fast.shape == exact.shape
    difference = np.abs(fast.astype(int) - exact)
    ringing = min(size) < 8  # LANCZOS overshoots at the edges of a few huge pixels
    assert difference.mean() < (6 if ringing else 1.0)
    assert np.percentile(difference, 99) <= (60 if ringing else 6)


@pytest.mark.parametrize("width", [641, 643, 647, 640])
def test_fast_does_not_shift_the_picture(resizer: str, width: int) -> None:
    """A width that 8 does not divide is not stretched: 81 columns for 80.125 would shift the right edge by 0.9."""
    x = np.arange(width)
    ramp = np.broadcast_to((x * 255 / width).astype(np.uint8)[None, :, None], (384, width, 3))
    body = encode(Image.fromarray(ramp), format="JPEG", quality=100, subsampling=0)
    exact, _ = read_pixels(body, params())
    fast, _ = read_pixels(body, params(), mode="fast")
    shift = (fast.astype(float) - exact).mean(axis=(0, 2)) * 80 / 255  # a level is 80/255 of a network pixel
    assert abs(shift[-20:].mean()) < 0.25
    assert abs(shift[:20].mean()) < 0.25


@pytest.mark.parametrize(
    ("size", "orientation", "decoded"),
    [
        ((1920, 1080), 1, (960, 540)),
        ((1824, 1034), 1, (912, 517)),
        ((1822, 1080), 1, (1822, 1080)),  # 911 is less than 0.95 of 960
        ((1920, 1032), 1, (1920, 1032)),
        ((3840, 2160), 1, (960, 540)),
        ((7680, 4320), 1, (960, 540)),
        ((1280, 720), 1, (1280, 720)),
        ((1081, 1921), 6, (541, 961)),
    ],
)
def test_fast_decodes_no_more_of_a_jpeg_than_needed(
    size: tuple[int, int], orientation: int, decoded: tuple[int, int]
) -> None:
    """At a half, a quarter or an eighth as long as 0.95 of the network's size is left in both directions."""
    body = encode(Image.new("RGB", size), format="JPEG", orientation=orientation)
    found = decode(read(body, max_bytes=10**7, max_pixels=10**8), at_least=(0.95 * 960, 0.95 * 544))
    assert found.image.size == decoded
    assert (found.width, found.height) == size
    scale = round(size[0] / decoded[0])
    assert found.box == (0, 0, size[0] / scale, size[1] / scale)


def test_the_mode_must_be_known() -> None:
    """A mode that is none is a mistake of the caller, not of the image."""
    wrong: Any = "nearest"
    with pytest.raises(ValueError, match="lanczos, fast"):
        preprocess(encode(picture()), params(), mode=wrong)
    modes: tuple[ResizeMode, ...] = RESIZE_MODES
    assert modes == ("lanczos", "fast")


def test_an_opencv_that_does_not_load_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing or broken cv2 leaves Pillow to resize, and is asked for once."""
    wanted = read_pixels(encode(picture()), params(), mode="fast")[0]
    monkeypatch.setitem(sys.modules, "cv2", None)
    resize.opencv.cache_clear()
    try:
        assert resize.opencv() is None
        pixels, _ = read_pixels(encode(picture()), params(), mode="fast")
        assert np.abs(pixels.astype(int) - wanted).mean() < 2
    finally:
        resize.opencv.cache_clear()
