"""Whatever bytes arrive: a picture of the network's size or ImageError, the same in both resize modes."""

from __future__ import annotations

import random

import numpy as np
from damage import mutate
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode, params, picture
from PIL import Image

from tao2serve.runtime import ImageError
from tao2serve.runtime.preprocess import RESIZE_MODES, ResizeMode, read_pixels

SMALL = picture(170, 110)
FRAMES = [SMALL.rotate(angle) for angle in (90, 180)]
SEEDS = [
    encode(SMALL, format="JPEG", orientation=6),
    encode(SMALL, format="JPEG", progressive=True),
    encode(SMALL.convert("CMYK"), format="JPEG"),
    encode(SMALL.convert("L"), format="JPEG"),
    encode(SMALL, orientation=3),
    encode(SMALL.convert("P"), transparency=3),
    encode(SMALL.convert("RGBA")),
    encode(SMALL.convert("1")),
    encode(Image.fromarray(np.arange(170 * 110, dtype=np.uint16).reshape(110, 170))),
    encode(SMALL, save_all=True, append_images=FRAMES),
    encode(SMALL, format="BMP"),
    encode(SMALL.convert("P"), format="BMP"),
    encode(SMALL.convert("RGBA"), format="BMP"),
    encode(SMALL, format="WEBP", orientation=8),
    encode(SMALL, format="WEBP", lossless=True),
    encode(SMALL, format="WEBP", save_all=True, append_images=FRAMES),
]


def outcome(body: bytes, mode: ResizeMode) -> tuple[int, int] | str:
    try:
        # A limit of its own: damage to a size must not make the test slow.
        pixels, size = read_pixels(body, params(), mode=mode, max_pixels=1_000_000)
    except ImageError as error:
        return str(error)
    assert pixels.shape == (48, 80, 3)
    assert pixels.dtype == np.uint8
    return size


def test_damaged_images() -> None:
    """4,000 damaged images of every kind: no other exception, and both modes say the same about each."""
    chance = random.Random(11)
    taken = 0
    for number in range(4_000):
        seed = SEEDS[number % len(SEEDS)]
        # Half of them are damaged in their headers, where most rules are.
        body = mutate(seed[:400], chance) + seed[400:] if chance.random() < 0.5 else mutate(seed, chance)
        outcomes = {outcome(body, mode) for mode in RESIZE_MODES}
        assert len(outcomes) == 1
        (said,) = outcomes
        taken += isinstance(said, tuple)
        assert isinstance(said, tuple) or (len(said) < 240 and "\n" not in said)
    assert 500 < taken < 3_500


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x20\0\0\0WEBP", b""]), st.binary(max_size=400)
)
def test_any_bytes(start: bytes, rest: bytes) -> None:
    """Signatures followed by anything."""
    outcomes = {outcome(start + rest, mode) for mode in RESIZE_MODES}
    assert len(outcomes) == 1
