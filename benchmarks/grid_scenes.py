"""Grids that look as DetectNet_v2 gives them, for measuring what turns grids into boxes. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "SCENES", "STRIDE", "Scene", "grids_of"]

STRIDE = 16
BBOX_SCALE, BBOX_OFFSET = 35.0, 0.5
CLASSES = ("car", "cyclist", "pedestrian")
# Width over height, and the median height in pixels of the network.
_SHAPES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"car": (1.6, 70.0), "cyclist": (0.8, 70.0), "pedestrian": (0.4, 90.0)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """How many objects there are, how large they are, and how many cells elsewhere are covered a little, as a ratio."""

    objects: int
    size_ratio: float = 1.0
    noise_ratio: float = 0.0


# Two hundred objects are a crowd, whose people are small. `noisy` is like the golden scene `medium`.
SCENES: Mapping[str, Scene] = MappingProxyType(
    {
        "light": Scene(objects=5),
        "medium": Scene(objects=30),
        "heavy": Scene(objects=200, size_ratio=0.6),
        "noisy": Scene(objects=30, noise_ratio=0.4),
    }
)


def grids_of(
    scene: Scene, *, images: int, seed: int, rows: int = 34, columns: int = 60
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coverage (images, C, rows, columns) and bbox (images, 4C, rows, columns), the same for the same seed.

    An object covers the cells of an ellipse around its centre, most in the middle, and each of these cells says
    where the object's four sides are, a little off. Where objects of one class meet, the better covered one wins.
    """
    rng = np.random.default_rng(seed)
    shape = (images, len(CLASSES), rows, columns)
    cov = rng.lognormal(-7.8, 0.5, shape)
    covered = rng.random(shape) < scene.noise_ratio
    cov[covered] = rng.lognormal(-4.6, 0.9, int(covered.sum()))
    bbox = rng.normal(0.5, 0.6, (images, len(CLASSES), 4, rows, columns))
    for image in range(images):
        for _ in range(scene.objects):
            class_id = int(rng.integers(len(CLASSES)))
            aspect, height = _SHAPES[CLASSES[class_id]]
            _draw(cov[image, class_id], bbox[image, class_id], aspect, height * scene.size_ratio, rng)
    return cov.astype(np.float32), bbox.reshape(images, -1, rows, columns).astype(np.float32)


def _draw(
    cov: NDArray[np.float64],
    bbox: NDArray[np.float64],
    aspect: float,
    median_height: float,
    rng: np.random.Generator,
) -> None:
    """Put one object into the grids of its class."""
    rows, columns = cov.shape
    height = float(np.clip(rng.lognormal(np.log(median_height), 0.5), 12.0, rows * STRIDE / 2))
    width = height * aspect * float(rng.lognormal(0.0, 0.2))
    centre = rng.random(2) * (columns * STRIDE, rows * STRIDE)
    x = np.arange(columns) * STRIDE + BBOX_OFFSET
    y = np.arange(rows)[:, None] * STRIDE + BBOX_OFFSET
    # TAO covers part of the object's box, and never less than a cell or so.
    radius = np.maximum(0.4 * np.array((width, height)), 0.8 * STRIDE)
    distance = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2
    value = rng.uniform(0.55, 0.99) * np.exp(-1.2 * distance) * rng.uniform(0.8, 1.0, cov.shape)
    mine = (distance < 2.0) & (value > cov)
    half = np.array((width, height)) / 2
    low, high = centre - half, centre + half
    x, y = np.broadcast_to(x, cov.shape)[mine], np.broadcast_to(y, cov.shape)[mine]
    sides = np.stack((x - low[0], y - low[1], high[0] - x, high[1] - y))
    spread = 0.02 * np.array((width, height, width, height))[:, None] + 0.5
    cov[mine] = value[mine]
    bbox[:, mine] = (sides + rng.normal(0.0, 1.0, sides.shape) * spread) / BBOX_SCALE
