"""Bodies that are no image, are damaged, or were made to cost much: one sentence, at once, in both resize modes."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from bad_bodies import undecoded_jpeg
from image_files import bmp, encode, huge, params, picture, png, png_chunk, segment
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

import tao2serve
from tao2serve.runtime import ImageError
from tao2serve.runtime.image import in_turn, read
from tao2serve.runtime.preprocess import RESIZE_MODES, ResizeMode, read_pixels

pytestmark = pytest.mark.parametrize("mode", RESIZE_MODES)

JPEG = encode(picture(), format="JPEG")
WHOLE = {
    "jpeg": JPEG,
    "progressive": encode(picture(), format="JPEG", progressive=True),
    "png": encode(picture()),
    "bmp": encode(picture(), format="BMP"),
    "webp": encode(picture(), format="WEBP"),
}


@pytest.fixture(autouse=True)
def imported(mode: ResizeMode) -> None:
    """What a mode imports at its first picture, OpenCV for one, is no part of what is held to a time."""
    read_pixels(JPEG, params(), mode=mode)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Hold the block to processor time of this thread, which other work on the machine does not spend."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < seconds


def refused(body: bytes, mode: ResizeMode, **limits: int) -> str:
    """Return the sentence; anything but an ImageError of one line fails."""
    with pytest.raises(ImageError) as caught:
        read_pixels(body, params(), mode=mode, **limits)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert 10 < len(sentence) < 240
    return sentence


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"hello", "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"),
        (b"\x80\x04\x95", "no image"),
        (encode(picture(), format="GIF"), "no image"),
        (encode(picture(), format="TIFF"), "no image"),
        (encode(picture(), format="PPM"), "no image"),
        (b"\xff\xd8\xff", "within its header"),
        (b"\xff\xd8\xff\xd9", "no pixels"),
        (b"\x89PNG\r\n\x1a\n", "within its header"),
        (b"BM", "within its header"),
        (b"RIFF\0\0\0\0WEBP", "within its header"),
        (b"RIFF\0\0\0\0WEBPABCD\0\0\0\0", "does not begin"),
    ],
    ids=repr,
)
def test_what_is_no_image(body: bytes, words: str, mode: ResizeMode) -> None:
    """Text, other formats, code and mere signatures are refused by name."""
    assert words in refused(body, mode)


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files(kind: str, mode: ResizeMode) -> None:
    """A file cut off anywhere before its last row is refused, never filled up with gray."""
    body = WHOLE[kind]
    # The last 22 bytes of a PNG are its end, a checksum of each the chunk and the rows, and the end of compression.
    end = len(body) - (23 if kind == "png" else 1)
    cuts = [*range(0, 64), *range(64, end, max(end // 60, 1)), end]
    with within(3.0):
        for cut in cuts:
            refused(body[:cut], mode)


@pytest.mark.parametrize(
    ("name", "body"), list(huge(60_000)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_huge_claim_costs_nothing(name: str, body: bytes, mode: ResizeMode) -> None:
    """60,000 x 60,000 in any format's header is refused within milliseconds."""
    with within(0.05):
        assert "60000x60000" in refused(body, mode)
        assert "60000x60000" in refused(body, mode, max_pixels=3_599_999_999)


def test_a_huge_claim_takes_no_memory(mode: ResizeMode) -> None:
    """In a process that may use 400 MB more than it has, nothing runs out of memory: it is refused before."""
    program = f"""
import resource, sys
from image_files import huge, params
from tao2serve.runtime.preprocess import ImageError, read_pixels
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, used + 400_000_000))
for name, body in huge(60_000):
    try:
        read_pixels(body, params(), mode={mode!r})
    except ImageError as error:
        assert "limit is 64,000,000 pixels" in str(error), (name, error)
        print(name)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
    paths = (Path(tao2serve.__file__).parents[1], Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *names, peak_kb = done.stdout.split()
    assert len(names) == len(list(huge(1)))
    assert int(peak_kb) < 200_000


@pytest.mark.parametrize("size", [(9_000, 9_000), (70_000, 2), (2, 70_000), (60_000_000, 1)], ids=str)
def test_pixels_and_sides_have_limits(size: tuple[int, int], mode: ResizeMode) -> None:
    """Too many pixels, and a side of more than 65,535: a resize table would grow with it."""
    with within(0.05):
        assert "limit" in refused(png(*size), mode)
        assert "limit" in refused(bmp(*size), mode)


@pytest.mark.parametrize("size", [(65_000, 3), (3, 65_000)], ids=str)
def test_a_long_side_is_read(size: tuple[int, int], mode: ResizeMode) -> None:
    """What the limit of a side lets through is resized soon."""
    with within(1.5):
        for kind in ("JPEG", "PNG"):
            assert read_pixels(encode(Image.new("RGB", size), format=kind), params(), mode=mode)[1] == size


@pytest.mark.parametrize("size", [(0, 10), (10, 0)], ids=str)
def test_no_pixels(size: tuple[int, int], mode: ResizeMode) -> None:
    """A size of zero is no picture."""
    refused(png(*size), mode)
    refused(bmp(*size), mode)
    refused(bmp(-5, 5), mode)


def test_limits_are_arguments(mode: ResizeMode) -> None:
    """Bytes and pixels are refused above their limits, not at them, and whatever the process set for Pillow."""
    assert "bytes, and the limit is 100" in refused(b"x" * 101, mode, max_bytes=100)
    assert "200x100" in refused(JPEG, mode, max_pixels=19_999)
    read_pixels(JPEG, params(), mode=mode, max_pixels=20_000, max_bytes=len(JPEG))


def test_pillows_own_limit_does_not_matter(mode: ResizeMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image.MAX_IMAGE_PIXELS belongs to the process; the limit here is the argument."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("jpeg", "progressive", "png", "bmp"):  # WebP's plugin heeds it, above twice its value
        read_pixels(WHOLE[kind], params(), mode=mode)


def inflating(size: int = 1_000_000) -> bytes:
    return zlib.compress(bytes(size), 9)


def hostile_exif() -> bytes:
    """65,535 entries that each point at the same megabyte."""
    entry = struct.pack(">HHII", 0x9286, 7, 1_000_000, 800_000)
    entries = b"".join(struct.pack(">H", tag) + entry[2:] for tag in range(0x8000, 0x8000 + 30_000))
    return b"MM\0*" + struct.pack(">IH", 8, 30_000) + entries + bytes(2_000_000)


def repeated_scan(count: int) -> bytes:
    """A baseline JPEG that goes on with the scan it has had."""
    body = encode(Image.new("RGB", (3000, 3000)), format="JPEG")
    return body[:-2] + body[body.index(b"\xff\xda") : -2] * count + b"\xff\xd9"


def gray_scans(count: int) -> bytes:
    """A baseline JPEG of three components with one scan for each of the first two, again and again."""
    body = encode(Image.new("RGB", (3000, 3000)), format="JPEG")
    start = body.index(b"\xff\xda")
    scan = body[start + 14 : -2]
    heads = [segment(0xDA, bytes((1, component, 0, 0, 63, 0))) for component in (1, 2)]
    return body[:start] + b"".join(head + scan for head in heads) * count + b"\xff\xd9"


def many_scans(count: int, side: int = 3000) -> bytes:
    body = encode(Image.new("RGB", (side, side)), format="JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:-2] + body[last:-2] * count + b"\xff\xd9"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (JPEG[:2] + segment(0xFE, b"") * 50_000 + JPEG[2:], "segments"),
        (JPEG[:2] + segment(0xDB, b"\0" + bytes([1]) * 64) * 50_000 + JPEG[2:], "tables"),
        (JPEG[:2] + b"\xff\xd0" * 50_000 + JPEG[2:], "segments"),
        (JPEG[:-2] + JPEG[2:], ""),
        (many_scans(100), "scans"),
        (many_scans(100).replace(b"\xff\xd9", segment(0xE3, b"\xff\xd9") + b"\xff\xd9"), "scans"),
        (many_scans(20)[:-2] + segment(0xE0, b"") * 50_000 + b"\xff\xd9", "segments"),
        (repeated_scan(500), ""),
        (gray_scans(100), "scans"),
        (png(10, 10, extra=png_chunk(b"tEXt", b"a\0b") * 50_000), "chunks"),
        (png(10, 10, extra=png_chunk(b"IDAT", b"") * 50_000), "chunks"),
        (WHOLE["webp"][:12] + b"VP8X" + struct.pack("<II", 10, 0) + bytes(6) + b"ABCD\0\0\0\0" * 50_000, "chunks"),
        (bmp(4000, 4000, bits=8, compression=1, masks=bytes(1024), rows=b"\1\1" * 800_000), "run-length"),
        (bmp(65_535, 976, bits=8, compression=1, masks=bytes(1024), rows=b"\1\5\0\0" * 976), "run-length"),
        (undecoded_jpeg(0xC3), "lossless"),
        (undecoded_jpeg(0xC5), "hierarchical"),
    ],
    ids=[
        "comments", "tables", "markers", "two-frames", "scans", "scans-hidden", "behind-a-scan", "baseline-again",
        "baseline-apart", "texts", "empty-pixels", "webp-chunks", "run-length", "run-length-left-out",
        "lossless", "hierarchical",
    ],
)  # fmt: skip
def test_what_costs_more_than_its_pixels_is_refused(body: bytes, words: str, mode: ResizeMode) -> None:
    """Endless segments, tables, scans, chunks and run lengths end in a sentence, soon."""
    with within(0.4):
        assert words in refused(body, mode)


@pytest.mark.parametrize(
    "extra",
    [
        png_chunk(b"iCCP", b"p\0\0" + inflating(30_000_000)),
        png_chunk(b"iCCP", b"p\0\0" + inflating()) * 5_000,
        png_chunk(b"zTXt", b"k\0\0" + inflating()) * 5_000,
        png_chunk(b"iTXt", b"k\0\1\0\0\0" + inflating()) * 5_000,
        png_chunk(b"eXIf", hostile_exif()),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + inflating()),
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
    ],
    ids=["one-profile", "profiles", "zTXt", "iTXt", "exif", "raw-exif", "second-header"],
)
def test_metadata_is_never_inflated(extra: bytes, mode: ResizeMode) -> None:
    """Profiles, texts and EXIF that would unfold to gigabytes are passed over, and the picture is read."""
    rows = b"".join(b"\0" + bytes(30) for _ in range(10))
    with within(0.4):
        assert read_pixels(png(10, 10, rows=rows, extra=extra), params(), mode=mode)[1] == (10, 10)


def test_a_jpegs_metadata_is_passed_over(mode: ResizeMode) -> None:
    """Hostile EXIF and multi-picture indexes in a JPEG are not followed."""
    exif = hostile_exif()
    parts = b"".join(segment(0xE1, b"Exif\0\0" + exif[place : place + 60_000]) for place in range(0, 2_000_000, 60_000))
    pictures = segment(0xE2, b"MPF\0" + exif[:60_000])
    with within(0.4):
        assert read_pixels(JPEG[:2] + parts + pictures + JPEG[2:], params(), mode=mode)[1] == (200, 100)


def test_pixels_that_inflate_for_ever(mode: ResizeMode) -> None:
    """A PNG whose compressed pixels go on behind its last row costs its rows."""
    rows = b"".join(b"\0" + bytes(30) for _ in range(10))
    body = png(10, 10, rows=rows + bytes(200_000_000))
    with within(0.1):
        read_pixels(body, params(), mode=mode)


def test_a_usual_number_of_scans_is_taken(mode: ResizeMode) -> None:
    """More scans than writers make are fine while the picture is small."""
    assert read_pixels(many_scans(60, side=300), params(), mode=mode)[1] == (300, 300)


def test_a_damaged_jpeg_is_said_nothing_about_on_stderr(mode: ResizeMode, capfd: pytest.CaptureFixture[str]) -> None:
    """Decoders write nothing, whether they give up or not."""
    chance = np.random.default_rng(5)
    for kind in ("jpeg", "progressive"):
        for _ in range(100):
            body = bytearray(WHOLE[kind])
            for place in chance.integers(300, len(body), 5):
                body[place] = chance.integers(256)
            with suppress(ImageError):
                read_pixels(bytes(body), params(), mode=mode)
    assert capfd.readouterr() == ("", "")


def test_of_the_largest_one_at_a_time_is_in_memory(mode: ResizeMode) -> None:
    """While a picture of 17 million pixels is read, another waits, and small ones do not."""
    large = encode(Image.new("L", (1_700, 10_000)))
    with ThreadPoolExecutor(2) as pool:
        with in_turn(read(large, max_bytes=10**8, max_pixels=10**8)):
            waiting = pool.submit(read_pixels, large, params(), mode=mode)
            assert pool.submit(read_pixels, JPEG, params(), mode=mode).result(timeout=10)[1] == picture().size
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        assert waiting.result(timeout=20)[1] == (1_700, 10_000)


def test_no_memory_is_not_the_pictures_fault(mode: ResizeMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that gets no memory raises MemoryError, which no server passes on as a bad picture."""

    def exhausted(_self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(JpegImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        read_pixels(JPEG, params(), mode=mode)
