"""Boxes and labels drawn on a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tao2serve.errors import UsageError
from tao2serve.serving.client import Prediction

__all__ = ["draw", "save_drawing"]

# Okabe and Ito's colours: told apart by colour-blind eyes too.
COLOURS: Final = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def draw(image: bytes, predictions: Sequence[Prediction]) -> Image.Image:
    """Return the upright picture with a box and a label for each prediction; sizes follow the picture's."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    unit = max(min(picture.size) / 400, 1.0)
    line = max(round(1.5 * unit), 2)
    font = ImageFont.load_default(size=max(round(11 * unit), 11))
    for prediction in sorted(predictions, key=lambda one: one.score):
        colour = COLOURS[prediction.class_id % len(COLOURS)]
        x1, y1, x2, y2 = prediction.bbox
        canvas.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=line)
        text = f"{prediction.label} {prediction.score:.2f}"
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * line, bottom - top + 2 * line
        # Above the box if there is room, else inside it; never outside the picture.
        label_x = min(max(x1, 0.0), max(picture.width - width, 0.0))
        label_y = y1 - height if y1 >= height else max(y1, 0.0)
        canvas.rectangle((label_x, label_y, label_x + width, label_y + height), fill=colour)
        canvas.text((label_x + line - left, label_y + line - top), text, fill="black", font=font)
    return picture


def save_drawing(image: bytes, predictions: Sequence[Prediction], *, path: Path) -> Path:
    """Draw and save as PNG or JPEG, by the name's ending; raises UsageError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(image, predictions).save(path, quality=92)
    except OSError as error:
        raise UsageError(str(path), "cannot be written", evidence=str(error)) from error
    return path
