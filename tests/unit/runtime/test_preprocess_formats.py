"""Every format, colour mode and orientation becomes the same upright RGB, in both resize modes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import bmp, encode, params, picture, png_16_bit, png_chunk, segment
from PIL import Image, ImageOps

from tao2serve.runtime.preprocess import RESIZE_MODES, ResizeMode, read_pixels

pytestmark = pytest.mark.parametrize("mode", RESIZE_MODES)

UPRIGHT = {
    1: (160, 96),
    2: (160, 96),
    3: (160, 96),
    4: (160, 96),
    5: (96, 160),
    6: (96, 160),
    7: (96, 160),
    8: (96, 160),
}


def pixels(body: bytes, mode: ResizeMode) -> np.ndarray:
    return read_pixels(body, params(), mode=mode)[0].astype(int)


def near(found: np.ndarray, wanted: np.ndarray, *, mean: float = 1.5) -> bool:
    return bool(np.abs(found - wanted).mean() < mean)


def plain(mode: ResizeMode) -> np.ndarray:
    return pixels(encode(picture(160, 96)), mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_formats(kind: str, mode: ResizeMode) -> None:
    """JPEG, PNG, BMP and WebP of one picture give one picture."""
    body = encode(picture(160, 96), format=kind)
    assert read_pixels(body, params(), mode=mode)[1] == (160, 96)
    assert near(pixels(body, mode), plain(mode), mean=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation(kind: str, orientation: int, mode: ResizeMode) -> None:
    """Each of EXIF's eight orientations is applied as Pillow's exif_transpose does, and the size is the upright one."""
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    body = encode(picture(160, 96), format=kind, orientation=orientation, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB")
    found, size = read_pixels(body, params(), mode=mode)
    assert size == upright.size == UPRIGHT[orientation]
    wanted = pixels(encode(upright), mode)
    if mode == "lanczos":
        np.testing.assert_array_equal(found, wanted)
    assert near(found.astype(int), wanted, mean=0.8)
    others = [np.flip(wanted, axes) for axes in ((0,), (1,), (0, 1))]
    assert all(np.abs(found.astype(int) - other).mean() > 10 for other in others)


def exif_block(order: str, kind: int, value: int, *, count: int = 1, tag: int = 0x0112) -> bytes:
    number = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "HHHI", 1, tag, kind, count) + number + bytes(4)


@pytest.mark.parametrize(
    ("block", "turned"),
    [
        (exif_block("<", 3, 6), True),
        (exif_block(">", 3, 6), True),
        (exif_block("<", 4, 6), True),
        (exif_block(">", 3, 0), False),
        (exif_block(">", 3, 9), False),
        (exif_block(">", 2, 6), False),
        (exif_block(">", 3, 6, tag=0x0113), False),
        (exif_block(">", 3, 6)[:14], False),
        (b"MM\0*\xff\xff\xff\xff", False),
        (b"MM\0*\0\0\0\x08\xff\xff", False),
        (b"", False),
        (b"nothing", False),
    ],
)
def test_exif_is_read_or_passed_over(block: bytes, turned: bool, mode: ResizeMode) -> None:
    """Both byte orders; an orientation that is damaged, out of range or absent is none, and the image is still read."""
    jpeg = encode(picture(160, 96), format="JPEG")
    png = encode(picture(160, 96))
    webp = encode(picture(160, 96), format="WEBP", exif=b"Exif\0\0" + block) if block else None
    bodies = [
        jpeg[:2] + segment(0xE1, b"Exif\0\0" + block) + jpeg[2:],
        jpeg[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + segment(0xE1, b"Exif\0\0" + block) + jpeg[2:],
        png[:33] + png_chunk(b"eXIf", block) + png[33:],
        png[:-12] + png_chunk(b"eXIf", block) + png[-12:],
        *([webp] if webp else []),
    ]
    for body in bodies:
        assert read_pixels(body, params(), mode=mode)[1] == ((96, 160) if turned else (160, 96))


def test_gray_alpha_palette_and_one_bit(mode: ResizeMode) -> None:
    """Gray has equal channels; alpha is ignored wherever it is; a palette gives its colours."""
    image = picture(160, 96)
    gray = pixels(encode(image.convert("L"), format="JPEG"), mode)
    assert (gray[..., 0] == gray[..., 1]).all()
    assert (gray[..., 0] == gray[..., 2]).all()
    assert near(gray[..., 0], pixels(encode(image.convert("L").convert("RGB")), mode)[..., 0])
    transparent = image.convert("RGBA")
    transparent.putalpha(0)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("BMP", {})):
        np.testing.assert_array_equal(pixels(encode(transparent, format=kind, **options), mode), plain(mode))
    palette = image.quantize(200)
    wanted = pixels(encode(palette.convert("RGB")), mode)
    for transparency in (0, bytes(range(200))):
        np.testing.assert_array_equal(pixels(encode(palette, transparency=transparency), mode), wanted)
    one_bit = image.convert("1")
    wanted = pixels(encode(one_bit.convert("RGB")), mode)
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(pixels(encode(one_bit, format=kind), mode), wanted)


def test_cmyk(mode: ResizeMode) -> None:
    """CMYK JPEGs, inverted as Adobe stores them, and YCCK are the picture, not its negative."""
    cmyk = encode(picture(160, 96).convert("CMYK"), format="JPEG", quality=95)
    assert b"Adobe" in cmyk
    assert near(pixels(cmyk, mode), plain(mode), mean=6)
    # Photoshop's YCCK: luma and chroma of the ink, black inverted. Pillow inverts all four when it writes.
    ink = np.asarray(picture(160, 96).convert("CMYK"))
    ycc = np.asarray(Image.fromarray(np.ascontiguousarray(ink[..., :3])).convert("YCbCr"))
    stored = Image.frombytes("CMYK", (160, 96), np.dstack((255 - ycc, ink[..., 3])).tobytes())
    body = encode(stored, format="JPEG", quality=95)
    place = body.index(b"Adobe") + 11
    body = body[:place] + b"\2" + body[place + 1 :]
    assert near(pixels(body, mode), plain(mode), mean=6)


def test_16_bits(mode: ResizeMode) -> None:
    """16-bit gray and colour keep their range: the upper byte counts, nothing is cut off at 255."""
    small = np.asarray(picture(160, 96)).astype(np.uint16)
    colour = small * 256 + 77
    np.testing.assert_array_equal(pixels(png_16_bit(colour), mode), plain(mode))
    gray = pixels(encode(Image.fromarray(small[..., 0].astype(np.uint8))), mode)
    np.testing.assert_array_equal(pixels(png_16_bit(colour[..., 0]), mode), gray)


def test_bmp_depths(mode: ResizeMode) -> None:
    """BMP of 8, 16 (two layouts), 24 and 32 bits, and with its rows from top to bottom."""
    image = np.asarray(picture(160, 96)).astype(np.uint32)
    red, green, blue = (image[..., channel] for channel in range(3))
    upside_down = np.s_[::-1]
    five = (red >> 3 << 10 | green >> 3 << 5 | blue >> 3).astype("<u2")
    six = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype("<u2")
    full = (red << 16 | green << 8 | blue).astype("<u4")
    bodies = [
        bmp(160, 96, bits=16, rows=five[upside_down].tobytes()),
        bmp(160, -96, bits=16, rows=five.tobytes()),
        bmp(160, 96, bits=16, compression=3, masks=struct.pack("<III", 0xF800, 0x07E0, 0x1F), rows=six[::-1].tobytes()),
        bmp(160, 96, bits=32, rows=full[upside_down].tobytes()),
        encode(picture(160, 96).quantize(256), format="BMP"),
    ]
    for body in bodies:
        assert near(pixels(body, mode), plain(mode), mean=5)
    np.testing.assert_array_equal(pixels(bodies[3], mode), plain(mode))


def test_a_run_length_bmp_is_read_while_it_is_small(mode: ResizeMode) -> None:
    """RLE8 decodes; its rows run from bottom to top."""
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    row = b"".join(bytes((1, x % 256)) for x in range(160)) + b"\0\0"
    body = bytearray(bmp(160, 96, bits=8, compression=1, masks=palette, rows=row * 96 + b"\0\1"))
    found = pixels(bytes(body), mode)
    wanted = np.broadcast_to(np.arange(160, dtype=np.uint8), (96, 160))
    np.testing.assert_array_equal(found, pixels(encode(Image.fromarray(np.ascontiguousarray(wanted))), mode))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str, mode: ResizeMode) -> None:
    """Animated PNG and WebP are read as their first picture."""
    others = [Image.new("RGB", (160, 96), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    body = encode(picture(160, 96), format=kind, save_all=True, append_images=others, duration=40, **options)
    np.testing.assert_array_equal(pixels(body, mode), plain(mode))


def test_what_does_not_belong_to_the_pixels_does_not_matter(mode: ResizeMode) -> None:
    """Comments, profiles, fill bytes and a file behind the end of a JPEG change nothing; nor do chunks of a PNG."""
    jpeg, png = encode(picture(160, 96), format="JPEG"), encode(picture(160, 96))
    extras = segment(0xFE, b"comment \xff\xda\xff\xd9") + segment(0xE2, b"ICC_PROFILE\0\1\1junk") + b"\xff\xff\xff"
    np.testing.assert_array_equal(pixels(jpeg[:2] + extras + jpeg[2:] + b"\xff\xda" * 999, mode), pixels(jpeg, mode))
    bad_profile = png_chunk(b"iCCP", b"x\0\0junk") + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9_000_000)))
    np.testing.assert_array_equal(pixels(png[:33] + bad_profile + png[33:], mode), pixels(png, mode))


def test_progressive_and_restart_markers(mode: ResizeMode) -> None:
    """A progressive JPEG, one with restart markers, and 4:4:4 are the same picture."""
    for options in ({"progressive": True}, {"restart_marker_blocks": 4}, {"subsampling": 0}):
        assert near(pixels(encode(picture(160, 96), format="JPEG", **options), mode), plain(mode))
