"""From boxes to what the network is trained to say: a coverage grid and a bbox grid per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from recipe import ClassRecipe

__all__ = ["grid_points", "rasterize"]

STRIDE = 16


def grid_points(height: int, width: int, *, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions the cells stand for: x (w,) and y (h,). Decoding uses the same ones."""
    return (
        np.arange(width, dtype=np.float32) * STRIDE + np.float32(offset),
        np.arange(height, dtype=np.float32) * STRIDE + np.float32(offset),
    )


def rasterize(
    boxes: Sequence[np.ndarray], classes: Sequence[ClassRecipe], *, grid: tuple[int, int], scale: float, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise boxes (class index, left, top, right, bottom in pixels), one array per image.

    Returns coverage (N, K, h, w), 1 within the ellipse of an object, and bbox (N, 4K, h, w), the distances from
    the cell's point to left, top, right, bottom in units of `scale` pixels, meaningful only where covered.
    Where objects of one class meet, a cell belongs to the one whose centre is nearer, measured in its radii.
    """
    height, width = grid
    x, y = grid_points(height, width, offset=offset)
    coverage = np.zeros((len(boxes), len(classes), height, width), np.float32)
    bbox = np.zeros((len(boxes), 4 * len(classes), height, width), np.float32)
    for n, rows in enumerate(boxes):
        nearest = np.ones((len(classes), height, width), np.float32)
        for row in rows:
            k = int(row[0])
            left, top, right, bottom = (float(v) for v in row[1:])
            recipe = classes[k]
            least = recipe.bbox_min_radius * STRIDE
            rx = max(recipe.cov_radius * (right - left) / 2, least)
            ry = max(recipe.cov_radius * (bottom - top) / 2, least)
            dx, dy = (x - (left + right) / 2) / rx, (y - (top + bottom) / 2) / ry
            distance = dx[None, :] ** 2 + dy[:, None] ** 2
            mine = distance < nearest[k]
            nearest[k][mine] = distance[mine]
            coverage[n, k][mine] = 1.0
            rows_at, columns_at = np.nonzero(mine)
            bbox[n, 4 * k + 0, rows_at, columns_at] = (x[columns_at] - left) / scale
            bbox[n, 4 * k + 1, rows_at, columns_at] = (y[rows_at] - top) / scale
            bbox[n, 4 * k + 2, rows_at, columns_at] = (right - x[columns_at]) / scale
            bbox[n, 4 * k + 3, rows_at, columns_at] = (bottom - y[rows_at]) / scale
    return coverage, bbox
