"""Boxes and labels drawn on a picture, to be read at any size."""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageColor, ImageDraw

from tao2serve.errors import UsageError
from tao2serve.export.atomic import write_atomically
from tao2serve.images import open_upright
from tao2serve.serving.labels import Wanted, place_labels
from tao2serve.serving.lettering import Lettering, lettering_for
from tao2serve.values import Prediction

__all__ = ["ENDINGS", "draw", "drawing_ending", "save_drawing", "save_picture"]

# Okabe and Ito's colours: told apart by colour-blind eyes too. Further classes get hues between them.
COLOURS: Final = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
GOLDEN_RATIO: Final = 0.618034
ENDINGS: Final = (".png", ".jpg")
PNG_PIXELS: Final = 16_000_000  # a PNG of more takes seconds to write, and tens of megabytes
JPEG_SIDE: Final = 65_000  # JPEG ends at 65,500
FEW: Final = 30  # more labels than that are written smaller
LONGEST_NAME: Final = 40  # characters
ICON_SIDE: Final = 100  # smaller pictures get thinner lines, and names in part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Of lines and letters, in pixels."""

    line: int
    letters: int
    margin: int
    icon: bool


def draw(image: bytes, predictions: Sequence[Prediction]) -> Image.Image:
    """Return the picture as the endpoint saw it, with a box for each prediction and a label where it can be read.

    Sizes follow the picture's. The surest predictions choose their label's place first; where no place is left
    that covers no other label, a label is shortened to the name, then left out. Raises InputError if the picture
    cannot be decoded.
    """
    picture = open_upright(image)
    canvas = ImageDraw.Draw(picture)
    shown = [one for one in predictions if all(map(math.isfinite, one.bbox))]
    shown.sort(key=lambda one: -one.score)
    boxes = [_inside(one.bbox, picture.size) for one in shown]
    sizes = _sizes(picture.size, len(shown))
    for prediction, box in zip(reversed(shown), reversed(boxes), strict=True):
        _outline(canvas, box, colour_of(prediction.class_id), sizes.line)
    forms = [_forms(one, sizes) for one in shown]
    wanted = [
        Wanted(
            box=(box[0], box[1], box[2] + 1, box[3] + 1),
            sizes=tuple(_label_size(lettering, sizes.margin) for lettering in some),
        )
        for box, some in zip(boxes, forms, strict=True)
    ]
    for prediction, some, place in zip(shown, forms, place_labels(wanted, picture=picture.size), strict=True):
        if place is not None:
            form, corner = place
            _write(canvas, some[form], corner, colour_of(prediction.class_id), sizes.margin)
    return picture


def colour_of(class_id: int) -> str:
    """Return a class's colour, the same on every picture."""
    if class_id < len(COLOURS):
        return COLOURS[class_id]
    turn = class_id - len(COLOURS)
    red, green, blue = colorsys.hsv_to_rgb(
        (0.05 + turn * GOLDEN_RATIO) % 1.0, (0.75, 0.45, 0.95)[turn % 3], (0.95, 0.85, 0.65)[turn % 3]
    )
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def ink_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on the colour (WCAG's contrast ratio)."""
    channels = [value / 255 for value in ImageColor.getrgb(colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def drawing_ending(width: int, height: int) -> str:
    """Return the ending of a drawing's file: .png, but .jpg where a PNG would be very large."""
    return ".jpg" if width * height > PNG_PIXELS and max(width, height) <= JPEG_SIDE else ".png"


def save_drawing(image: bytes, predictions: Sequence[Prediction], *, path: Path) -> Path:
    """Draw and save as PNG or JPEG, by the name's ending.

    Raises InputError if the picture cannot be decoded, UsageError if the drawing cannot be written.
    """
    return save_picture(draw(image, predictions), path=path)


def save_picture(picture: Image.Image, *, path: Path) -> Path:
    """Save a picture in one go, by the name's ending; raises UsageError if it cannot be written."""
    buffer = io.BytesIO()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(buffer, format="JPEG", quality=92)
    elif path.suffix.lower() == ".png":
        picture.save(buffer, format="PNG", compress_level=3)
    else:
        raise UsageError(str(path), "cannot be written", evidence="the name ends neither in .png nor in .jpg")
    write_atomically(path, buffer.getvalue(), durable=False)
    return path


def _sizes(picture: tuple[int, int], count: int) -> _Sizes:
    unit = max(min(picture) / 400, 1.0)
    crowd = max(math.sqrt(FEW / max(count, FEW)), 0.6)
    icon = min(picture) < ICON_SIDE
    return _Sizes(
        line=1 if icon else max(round(1.5 * unit * crowd), 2),
        letters=9 if icon else max(round(11 * unit * crowd), 11),  # smaller ones cannot be read
        margin=max(round(1.5 * unit * crowd), 1),
        icon=icon,
    )


def _inside(box: tuple[float, float, float, float], picture: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the box in whole pixels within the picture, at least one wide and high."""
    width, height = picture
    x1, y1 = (min(max(math.floor(side), 0), limit - 1) for side, limit in zip(box[:2], picture, strict=True))
    x2 = min(max(math.ceil(box[2]) - 1, x1), width - 1)
    y2 = min(max(math.ceil(box[3]) - 1, y1), height - 1)
    return x1, y1, x2, y2


def _outline(canvas: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: str, line: int) -> None:
    x1, y1, x2, y2 = box
    # On a small object a thick line would be all there is to see.
    width = max(min(line, round(min(x2 - x1, y2 - y1) / 5)), 1)
    if width > 1:  # a dark seam, for a colour like the ground's
        canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="#202020", width=1)
    canvas.rectangle(box, outline=colour, width=width)


def _forms(prediction: Prediction, sizes: _Sizes) -> tuple[Lettering, ...]:
    """Return what the label may say: name and score, the name alone, and on an icon the beginning of it."""
    name = lettering_for(prediction.label, class_id=prediction.class_id, size=sizes.letters)
    words = name.text if len(name.text) <= LONGEST_NAME else name.text[: LONGEST_NAME - 2] + ".."
    texts = [f"{words} {prediction.score:.2f}", words]
    if sizes.icon:
        texts += [words[:6], words[:3]]
    return tuple(Lettering(text=text, font=name.font) for text in texts)


def _label_size(lettering: Lettering, margin: int) -> tuple[float, float]:
    width, height = lettering.size_of(lettering.text)
    return width + 2 * margin + 1, height + 2 * margin


def _write(
    canvas: ImageDraw.ImageDraw, lettering: Lettering, corner: tuple[float, float], colour: str, margin: int
) -> None:
    x, y = round(corner[0]), round(corner[1])
    width, height = _label_size(lettering, margin)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    left, _, _, _ = lettering.font.getbbox(lettering.text)
    top, _ = lettering.line
    canvas.text((x + margin - left, y + margin - top), lettering.text, fill=ink_on(colour), font=lettering.font)
