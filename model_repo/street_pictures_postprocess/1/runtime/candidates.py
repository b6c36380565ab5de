"""Grid cells whose coverage passes the threshold, as boxes, and which of them overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .values import DetectorParams, Float32

Float64: TypeAlias = NDArray[np.float64]
BoxEncoding: TypeAlias = Literal["offsets", "absolute"]
Index: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Boxes in network pixels, class by class, within a class column by column of the grid (TAO's order).

    ltrb: (N, 4) float64, coverage: (N,) float64, class_id: (N,) int64.
    """

    ltrb: Float64
    coverage: Float64
    class_id: Index

    def __len__(self) -> int:
        return len(self.coverage)

    def take(self, index: Index | NDArray[np.bool_]) -> Candidates:
        return Candidates(ltrb=self.ltrb[index], coverage=self.coverage[index], class_id=self.class_id[index])


def find_candidates(
    cov: Float32, bbox: Float32, params: DetectorParams, *, boxes: BoxEncoding = "offsets"
) -> Candidates:
    """Return every cell above its class's coverage threshold as a box; a box that is not finite is left out.

    cov is (C, h, w), bbox (4C, h, w), either the network's offsets, decoded here as `absolute_boxes` says, or
    boxes that a graph has decoded already.
    """
    classes, rows, columns = cov.shape
    threshold = np.array([entry.coverage_threshold for entry in params.classes], dtype=np.float32)
    # Transposed first, so that nonzero() walks the grid column by column: clusters are numbered and ties
    # are broken in this order.
    class_id, x, y = np.nonzero(cov.transpose(0, 2, 1) > threshold[:, None, None])
    values = bbox.reshape(classes, 4, rows, columns)[class_id, :, y, x]
    if boxes == "offsets":
        centre_x, centre_y = cell_centres(params, rows=rows, columns=columns)
        sides = values * np.float32(params.bbox_scale)
        low, high = np.stack((centre_x[x], centre_y[y]), axis=1), sides[:, 2:]
        values = np.concatenate((low - sides[:, :2], low + high), axis=1)
    found = Candidates(
        ltrb=values.astype(np.float64), coverage=cov[class_id, y, x].astype(np.float64), class_id=class_id
    )
    finite = np.isfinite(found.ltrb).all(axis=1) & np.isfinite(found.coverage)
    return found if finite.all() else found.take(finite)


def cell_centres(params: DetectorParams, *, rows: int, columns: int) -> tuple[Float32, Float32]:
    """Return (x (columns,), y (rows,)) of the grid's cells in network pixels: index * stride + offset."""
    x = np.arange(columns) * round(params.width / columns) + params.bbox_offset
    y = np.arange(rows) * round(params.height / rows) + params.bbox_offset
    return x.astype(np.float32), y.astype(np.float32)


def absolute_boxes(bbox: Float32, params: DetectorParams) -> Float32:
    """Decode the whole grid: (4C, h, w) offsets → (4C, h, w) L, T, R, B in network pixels.

    L = cx - b0 * scale, T = cy - b1 * scale, R = cx + b2 * scale, B = cy + b3 * scale (tao_deploy's BboxHandler),
    each product and sum in float32, so that a graph of Mul, Sub and Add gives the same bits.
    """
    rows, columns = bbox.shape[1:]
    x, y = cell_centres(params, rows=rows, columns=columns)
    sides = bbox.reshape(-1, 4, rows, columns) * np.float32(params.bbox_scale)
    ltrb = (x - sides[:, 0], y[:, None] - sides[:, 1], x + sides[:, 2], y[:, None] + sides[:, 3])
    return np.stack(ltrb, axis=1).reshape(bbox.shape)


def neighbour_pairs(boxes: Candidates, eps: Float64) -> tuple[Index, Index]:
    """Return index arrays (i, j) of all pairs i != j of one class whose distance 1 - IoU is within `eps` (per box).

    The IoU's denominator carries NVIDIA's + 0.01. Boxes that are apart cost nothing: they are swept by left edge, and
    of two boxes i (further left) and j, IoU >= 1 - eps needs left_j - left_i <= eps * width_i.
    """
    left, _, right, _ = boxes.ltrb.T
    width = np.maximum(right - left, 0.0)
    span = float(np.ptp(left) + width.max()) + 1.0 if len(boxes) else 1.0
    key = left - left.min(initial=0.0) + boxes.class_id * (2.0 * span)  # classes never come near each other
    order = np.argsort(key, kind="stable")
    reach = np.where(eps < 1.0, eps * width, span)[order]
    stop = np.searchsorted(key[order], key[order] + reach, side="right")
    count = np.maximum(stop - np.arange(1, len(order) + 1), 0)
    first = np.repeat(np.arange(len(order)), count)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    i, j = order[first], order[second]
    near = 1.0 - overlap(boxes.ltrb[i], boxes.ltrb[j], smoothing=0.01) <= eps[i]
    i, j = i[near], j[near]
    return np.concatenate((i, j)), np.concatenate((j, i))


def overlap(a: Float64, b: Float64, *, smoothing: float = 0.0, pixel: float = 0.0) -> Float64:
    """Intersection over union of boxes (…, 4), broadcast over the leading axes; `pixel` is added to every side."""
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    intersection = np.maximum(high - low + pixel, 0.0).prod(axis=-1)
    area_a = (a[..., 2:] - a[..., :2] + pixel).prod(axis=-1)
    area_b = (b[..., 2:] - b[..., :2] + pixel).prod(axis=-1)
    union = area_a + area_b - intersection + smoothing
    ratio: Float64 = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ratio
