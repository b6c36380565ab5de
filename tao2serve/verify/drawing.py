"""Pictures of what differs: both sides' boxes beside each other, those without a twin in red."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tao2serve.images import open_upright
from tao2serve.parity.boxes import match_boxes
from tao2serve.runtime import Detections
from tao2serve.serving.drawing import save_picture
from tao2serve.verify.verification import ImageResult

__all__ = ["draw_difference", "save_difference"]

# Told apart by colour-blind eyes too, and by their width.
MATCHED, ALONE = "#56B4E9", "#D55E00"
BAR: Final = "#202020"


def draw_difference(image: bytes, result: ImageResult) -> Image.Image:
    """Return the upright picture twice: the reference's boxes on the left, the candidate's on the right."""
    picture = open_upright(image)
    pairs = match_boxes(result.reference, result.candidate)
    unit = max(min(picture.size) / 400, 1.0)
    gap, bar = round(6 * unit), round(22 * unit)
    font = ImageFont.load_default(size=max(round(13 * unit), 12))
    sheet = Image.new("RGB", (2 * picture.width + gap, picture.height + bar), BAR)
    canvas = ImageDraw.Draw(sheet)
    sides = (
        ("reference", result.reference, {i for i, _ in pairs}),
        ("candidate", result.candidate, {j for _, j in pairs}),
    )
    for number, (title, found, matched) in enumerate(sides):
        left = number * (picture.width + gap)
        sheet.paste(_boxes(picture, found, matched, unit), (left, bar))
        alone = len(found) - len(matched)
        words = f"{title}: {len(found)} boxes, {alone} without a twin"
        canvas.text((left + gap, bar / 2), words, fill="white", font=font, anchor="lm")
    return sheet


def _boxes(picture: Image.Image, found: Detections, matched: set[int], unit: float) -> Image.Image:
    drawn = picture.copy()
    canvas = ImageDraw.Draw(drawn)
    order = sorted(range(len(found)), key=lambda index: index not in matched)  # those that matter on top
    for index in order:
        x1, y1, x2, y2 = np.nan_to_num(found.xyxy[index]).tolist()
        colour, width = (MATCHED, 1) if index in matched else (ALONE, 2)
        canvas.rectangle(
            (x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=max(round(width * 1.2 * unit), width)
        )
    return drawn


def save_difference(image: bytes, result: ImageResult, *, path: Path) -> Path:
    """Draw and save as PNG; raises UsageError if it cannot be written."""
    return save_picture(draw_difference(image, result), path=path)
