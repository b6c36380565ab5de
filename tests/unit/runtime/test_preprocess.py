"""Image bytes to tensor: TAO's numbers, every format, and limits that cost nothing."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tao2serve.runtime import DetectorParams, ImageError, preprocess


def params(channels: int = 3) -> DetectorParams:
    return DetectorParams.from_dict(
        {
            "family": "detectnet_v2",
            "input": {"channels": channels, "height": 48, "width": 80},
            "bbox_scale": 35.0,
            "bbox_offset": 0.5,
            "classes": [{"name": "car"}],
        }
    )


def picture(width: int = 200, height: int = 100) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack((x * 255 // width, y * 255 // height, (x + y) % 256), axis=2).astype(np.uint8))


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def test_equals_pil_lanczos_over_255() -> None:
    """The tensor is RGB, channels first, resized by PIL LANCZOS, divided by 255."""
    image = picture()
    tensor, size = preprocess(encode(image), params())
    wanted = np.asarray(image.resize((80, 48), Image.Resampling.LANCZOS), dtype=np.float32).transpose(2, 0, 1) / 255
    assert size == (200, 100)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, wanted, atol=1e-7)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "WEBP"])
def test_takes_every_documented_format(format_name: str) -> None:
    """JPEG, PNG, BMP and WebP are read."""
    tensor, size = preprocess(encode(picture(), format=format_name), params())
    assert tensor.shape == (3, 48, 80)
    assert size == (200, 100)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK"])
def test_takes_every_colour_mode(mode: str) -> None:
    """Gray, alpha, palette and CMYK images become RGB in [0, 1]."""
    image = picture().convert(mode)
    tensor, _ = preprocess(encode(image, format="JPEG" if mode == "CMYK" else "PNG"), params())
    assert tensor.shape == (3, 48, 80)
    assert 0.0 <= tensor.min() <= tensor.max() <= 1.0


def test_16_bit_gray_keeps_its_range() -> None:
    """A 16-bit PNG is scaled to 8 bits, not cut off at 255."""
    image = Image.fromarray(np.full((20, 20), 32768, dtype=np.uint16))
    tensor, _ = preprocess(encode(image), params())
    assert tensor.mean() == pytest.approx(0.5, abs=0.01)


def test_orientation_is_applied() -> None:
    """A photograph turned by EXIF is turned upright, and the size is the upright one."""
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    tensor, size = preprocess(encode(image, exif=exif), params())
    upright, _ = preprocess(encode(image.transpose(Image.Transpose.ROTATE_270)), params())
    assert size == (100, 200)
    np.testing.assert_allclose(tensor, upright, atol=1e-6)


def test_one_channel_is_the_luma_of_the_resized_image() -> None:
    """Grayscale networks get ITU-R 601 luma, after the resize."""
    colour, _ = preprocess(encode(picture()), params())
    gray, _ = preprocess(encode(picture()), params(channels=1))
    assert gray.shape == (1, 48, 80)
    np.testing.assert_allclose(gray[0], np.tensordot([0.299, 0.587, 0.114], colour, axes=1), atol=1e-6)


def huge_png(side: int = 60_000) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b"hello", "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"),
        (b"\x80\x04\x95", "no image"),
        (encode(picture(), format="GIF"), "no image"),
        (encode(picture(), format="JPEG")[:900], "cannot be decoded"),
        (huge_png(), "limit"),
        (huge_png(9_000), "limit"),
    ],
    ids=["empty", "text", "svg", "pickle", "gif", "truncated", "bomb", "too-many-pixels"],
)
def test_a_body_that_is_no_image_gets_one_sentence(body: bytes, sentence: str) -> None:
    """Everything that is no acceptable image raises ImageError with one line of text."""
    start = time.process_time()
    with pytest.raises(ImageError, match=sentence) as caught:
        preprocess(body, params())
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 0.5


def test_too_many_bytes_are_refused_unread() -> None:
    """The size limit is checked before the image is opened."""
    with pytest.raises(ImageError, match="bytes, and the limit"):
        preprocess(b"x" * 101, params(), max_bytes=100)
