"""Image bytes to stored pixels: every limit is checked before a decoder sees the image.

One decoder, Pillow, reads for every resize mode, so that a body is taken by all of them or by none. OpenCV's is hardly
faster at the same scale, has rules and limits of its own, and writes to stderr about damage.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .header import DamagedImageError, Format, Header, ImageError, read_header

__all__ = ["MAX_BYTES", "MAX_PIXELS", "Picture", "decode", "in_turn", "one_sentence", "read", "upright"]

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 64_000_000
# The most that JPEG can say. A resize table grows with the longer side: 64 million pixels in a row would need 3 GB.
MAX_SIDE: Final = 65_535
# Writers make about ten scans. Each costs about 1 ns a pixel however few bytes it has, and hostile ones have millions.
MAX_SCANS: Final = 16
# Pillow reads run-length encoding in Python: about a microsecond a byte, and 0.12 a pixel that is left out.
MAX_RUN_LENGTH_BYTES: Final = 1024 * 1024
MAX_RUN_LENGTH_PIXELS: Final = 4_000_000
# Above, a picture may take hundreds of MB (an animated WebP of 64 million pixels takes 950) whatever its bytes are.
ALONE_PIXELS: Final = 16_000_000
_ALONE: Final = threading.Lock()

# The classes themselves rather than Image.open: its own pixel limits are warnings and settings of the whole process.
PLUGINS: Final[dict[Format, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "WEBP": WebPImageFile,
}

# Turns the stored picture upright, by EXIF's orientation.
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Decoded pixels as they are stored, not yet upright: `image` has mode L or RGB.

    `box` is the part of `image` that holds the picture, (left, top, right, bottom) in its pixels: decoding at
    1/n rounds the size up, and then the last row and column are only partly covered. `orientation` is EXIF's.
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    orientation: int
    width: int
    height: int

    @property
    def turned(self) -> bool:
        """Whether width and height change places when the picture is put upright."""
        return self.orientation >= 5

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as a person sees the picture."""
        return (self.height, self.width) if self.turned else (self.width, self.height)


def read(body: bytes, *, max_bytes: int, max_pixels: int) -> Header:
    """Return the header of an image that is within the limits; raises ImageError, and no pixel is decoded."""
    if not body:
        raise ImageError("the body is empty; send the bytes of a JPEG, PNG, BMP or WebP image")
    if len(body) > max_bytes:
        raise ImageError(f"the image has {len(body):,} bytes, and the limit is {max_bytes:,}")
    with one_sentence():
        header = read_header(body)
        _check_size(header.width, header.height, max_pixels)
        _check_work(header, max_pixels)
    return header


def decode(header: Header, *, at_least: tuple[float, float] | None = None) -> Picture:
    """Decode a JPEG, PNG, BMP or WebP image that `read` has let pass; of an animation the first frame.

    With `at_least`, an upright (width, height), a JPEG is decoded at a half, a quarter or an eighth as long as that
    leaves no less. Colours become what Pillow's convert("RGB") makes of them, so transparency is ignored; of 16 bits
    the upper 8 count. Raises ImageError.
    """
    with one_sentence():
        image = PLUGINS[header.format](io.BytesIO(header.stream))
        _check_size(*image.size, header.width * header.height)  # what the decoder itself read, should the two differ
        width, height = image.size
        scale = 1
        if isinstance(image, JpegImageFile):
            image.decodermaxblock = len(header.stream)  # in one go, not in blocks of 64 KB
            if at_least is not None:
                scale = _reduce(image, at_least[::-1] if header.orientation >= 5 else at_least)
        image.load()
        return Picture(
            image=_eight_bits(image),
            box=(0, 0, width / scale, height / scale),
            orientation=header.orientation,
            width=width,
            height=height,
        )


def in_turn(header: Header) -> AbstractContextManager[object]:
    """Hold while a picture is decoded and resized: of the largest, a process has one at a time in memory."""
    return _ALONE if header.width * header.height > ALONE_PIXELS else nullcontext()


def upright(picture: Picture) -> Image.Image:
    """Return the decoded pixels as a person sees them, mode L or RGB."""
    if picture.orientation not in TURNS:
        return picture.image
    return picture.image.transpose(TURNS[picture.orientation])


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged image into ImageError; Pillow's plugins raise many kinds."""
    try:
        yield
    except (ImageError, MemoryError):  # the latter is the server's fault
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DamagedImageError(f"the image cannot be decoded: {text[:160]}") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the image cannot be decoded: it is {width}x{height} pixels")
    if width * height > max_pixels:
        raise ImageError(f"the image is {width}x{height} pixels, and the limit is {max_pixels:,} pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"the image is {width}x{height} pixels, and the limit of a side is {MAX_SIDE:,}")


def _check_work(header: Header, max_pixels: int) -> None:
    """Refuse what costs far more than its pixels."""
    if header.scans > MAX_SCANS and header.scans * header.width * header.height > max_pixels:
        raise ImageError(f"the JPEG has {header.scans:,} scans, and the limit at its size is {MAX_SCANS}")
    if header.compressed_rows and len(header.stream) > MAX_RUN_LENGTH_BYTES:
        raise ImageError(f"run-length BMP is taken up to {MAX_RUN_LENGTH_BYTES:,} bytes; send it uncompressed")
    if header.compressed_rows and header.width * header.height > MAX_RUN_LENGTH_PIXELS:
        raise ImageError(f"run-length BMP is taken up to {MAX_RUN_LENGTH_PIXELS:,} pixels; send it uncompressed")


def _reduce(image: JpegImageFile, at_least: tuple[float, float]) -> int:
    """Let the JPEG be decoded at 1/2, 1/4 or 1/8 by its own transform, and return that divisor."""
    # Pillow divides the size by what it is asked for; a whole number above `at_least` never asks for too little.
    wanted = (max(int(-(-at_least[0] // 1)), 1), max(int(-(-at_least[1] // 1)), 1))
    drafted = image.draft(None, wanted)
    return 1 if drafted is None else image.decoderconfig[0]


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit gray, which Pillow itself would cut off at 255. The upper byte, as Pillow takes of 16-bit colour.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("1", "LA"):
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
