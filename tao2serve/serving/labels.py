"""Where labels go on a picture: near their boxes, inside the picture, and not on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tao2serve.runtime.values import Float32

__all__ = ["Wanted", "place_labels"]

# Of a label's area that others may cover: a seam, no letter.
_COVERED_RATIO: Final = 0.01
# Of the picture that all labels together may cover.
_PICTURE_RATIO: Final = 1 / 3
# What a label hides of its own box counts less than what it hides of others.
_OWN_COST: Final = 0.5
# One place further down the list is worth hiding this much less of some other box.
_STEP_COST: Final = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A label that wants a place: its box, and its sizes from the most telling to the shortest form."""

    box: tuple[float, float, float, float]
    sizes: tuple[tuple[float, float], ...]  # width, height


def place_labels(
    wanted: Sequence[Wanted], *, picture: tuple[int, int]
) -> tuple[tuple[int, tuple[float, float]] | None, ...]:
    """Return for each label (which of its forms, its left top corner), or None where there is no room for any.

    The first ones choose first. A label lies inside the picture, covers no other one, and hides as little as can
    be of the boxes; all together they leave most of the picture free.
    """
    width, height = picture
    boxes = np.array([one.box for one in wanted], dtype=np.float32).reshape(-1, 4)
    areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1.0)
    placed = np.empty((len(wanted), 4), dtype=np.float32)
    count = 0
    free = _PICTURE_RATIO * width * height
    places: list[tuple[int, tuple[float, float]] | None] = []
    for index, one in enumerate(wanted):
        chosen = None
        for form, (label_width, label_height) in enumerate(one.sizes):
            area = label_width * label_height
            if label_width > width or label_height > height or area > free:
                continue
            corners = _corners(one.box, label_width, label_height, picture)
            label = np.concatenate([corners, corners + np.array([label_width, label_height], np.float32)], axis=1)
            on_labels = _overlaps(label, placed[:count]).max(axis=1, initial=0.0) / area
            hidden = _overlaps(label, boxes) / areas
            hidden[:, index] *= _OWN_COST
            cost = hidden.max(axis=1, initial=0.0) + _STEP_COST * np.arange(len(corners))
            cost[on_labels > _COVERED_RATIO] = np.inf
            best = int(np.argmin(cost))
            if np.isfinite(cost[best]):
                placed[count] = label[best]
                count += 1
                free -= area
                chosen = form, (float(corners[best, 0]), float(corners[best, 1]))
                break
        places.append(chosen)
    return tuple(places)


def _corners(box: tuple[float, float, float, float], width: float, height: float, picture: tuple[int, int]) -> Float32:
    """Return left top corners to try, the usual one first: above the box, in it, below it, beside it."""
    x1, y1, x2, y2 = box
    middle = (y1 + y2 - height) / 2
    corners = np.array(
        [
            (x1, y1 - height),
            (x2 - width, y1 - height),
            (x1, y1),
            (x1, y2),
            (x2 - width, y2),
            (x1, y2 - height),
            (x2 - width, y1),
            (x2, y1),
            (x1 - width, y1),
            (x2, middle),
            (x1 - width, middle),
            ((x1 + x2 - width) / 2, middle),
        ],
        dtype=np.float32,
    )
    room = np.array([picture[0] - width, picture[1] - height], dtype=np.float32)
    inside: Float32 = np.clip(corners, 0.0, room)
    return inside


def _overlaps(labels: Float32, others: Float32) -> Float32:
    """Return the areas that (N, 4) and (M, 4) rectangles share, (N, M)."""
    low = np.maximum(labels[:, None, :2], others[None, :, :2])
    high = np.minimum(labels[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, 0.0)
    shared: Float32 = sides[..., 0] * sides[..., 1]
    return shared
