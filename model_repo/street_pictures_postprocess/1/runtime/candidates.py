"""Grid cells whose coverage passes the threshold, as boxes in pixels of the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .values import DetectorParams, Float32

Float64: TypeAlias = NDArray[np.float64]
BoxEncoding: TypeAlias = Literal["offsets", "absolute"]
Index: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Boxes in network pixels, image by image, class by class, within a class column by column of the grid.

    This is TAO's order, and a candidate's index says which comes first. sides: (4, N) float64, the rows being left,
    top, right and bottom; coverage: (N,) float64; class_id: (N,) int64; group: (N,) int64, image * classes + class,
    never falling: boxes of different groups have nothing to do with each other.
    """

    sides: Float64
    coverage: Float64
    class_id: Index
    group: Index

    def __len__(self) -> int:
        return len(self.coverage)

    @property
    def ltrb(self) -> Float64:
        """The boxes as rows: (N, 4)."""
        return self.sides.T

    def take(self, index: Index | Mask) -> Candidates:
        if index.dtype == np.bool_:
            index = index.nonzero()[0]  # looked through once, not four times
        return Candidates(
            sides=self.sides.take(index, axis=1),
            coverage=self.coverage.take(index),
            class_id=self.class_id.take(index),
            group=self.group.take(index),
        )


def find_candidates(
    cov: Float32, bbox: Float32, params: DetectorParams, *, boxes: BoxEncoding = "offsets"
) -> Candidates:
    """Return every cell above its class's coverage threshold as a box; a box that is not finite is left out.

    cov is (C, h, w), bbox (4C, h, w), or both have a leading axis of images. bbox holds either the network's offsets,
    decoded here to the bits of `absolute_boxes`, or boxes that a graph has decoded already.
    """
    classes, rows, columns = cov.shape[-3:]
    grid = _grid(params, classes, rows, columns)
    above = cov.reshape(-1, classes, rows, columns) > grid.threshold
    # Swapped first, so that the grid is walked column by column: clusters are numbered and ties broken in this order.
    found = above.swapaxes(2, 3).ravel().nonzero()[0]
    if len(above) == 1:
        image, cell = None, found
    else:
        image, cell = np.divmod(found, len(grid.class_id))
    place = grid.place.take(cell)
    class_id = group = grid.class_id.take(cell)
    if image is not None:
        place += image * (4 * len(grid.class_id))
        group = image * classes + class_id
    values = bbox.reshape(-1).take(place + grid.planes)
    if boxes == "offsets":
        # centre - offset * scale and centre + offset * scale, with one rounding a product and one a sum.
        values *= grid.scale
        values += grid.centre.take(cell, axis=1)
    # In bbox the cells of class c begin at plane 4c, in cov at plane c.
    coverage = cov.reshape(-1).take(place - group * (3 * rows * columns))
    candidates = Candidates(
        sides=values.astype(np.float64), coverage=coverage.astype(np.float64), class_id=class_id, group=group
    )
    finite = np.isfinite(values)
    if finite.all() and np.isfinite(coverage).all():
        return candidates
    return candidates.take(finite.all(axis=0) & np.isfinite(coverage))


def cell_centres(params: DetectorParams, *, rows: int, columns: int) -> tuple[Float32, Float32]:
    """Return (x (columns,), y (rows,)) of the grid's cells in network pixels: index * stride + offset.

    The stride is input over grid, whole number or not: so it was trained (docs/architecture.md).
    """
    x = np.arange(columns) * (params.width / columns) + params.bbox_offset
    y = np.arange(rows) * (params.height / rows) + params.bbox_offset
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """What the cells of one image's grids have in common over all images.

    Arrays of C * h * w count the cells class by class, column by column.
    """

    threshold: Float32  # (C, 1, 1)
    class_id: Index
    place: Index  # where the cell's first offset lies in bbox, counted in values
    planes: Index  # (4, 1): from there to its L, T, R and B
    centre: Float32  # (4, C * h * w): what L, T, R and B are counted from
    scale: Float32  # (4, 1): what an offset is times, L and T to the left and up


@lru_cache(maxsize=16)
def _grid(params: DetectorParams, classes: int, rows: int, columns: int) -> _Grid:
    class_id, x, y = (index.ravel() for index in np.indices((classes, columns, rows)))
    centre_x, centre_y = cell_centres(params, rows=rows, columns=columns)
    threshold = np.array([entry.coverage_threshold for entry in params.classes], dtype=np.float32)
    return _Grid(
        threshold=threshold[:, None, None],
        class_id=class_id,
        place=(class_id * 4 * rows + y) * columns + x,
        planes=np.arange(4)[:, None] * (rows * columns),
        centre=np.stack((centre_x[x], centre_y[y]) * 2),
        scale=np.array([-1.0, -1.0, 1.0, 1.0], dtype=np.float32)[:, None] * np.float32(params.bbox_scale),
    )
