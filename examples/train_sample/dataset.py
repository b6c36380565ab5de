"""Scenes drawn once at network size and kept as arrays, so that an epoch costs no drawing."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import CLASSES, Scene, draw_scene

__all__ = ["HELD_OUT_SEEDS", "PICTURE_SEEDS", "TRAINING_SEEDS", "VALIDATION_SEEDS", "SceneSet", "render", "scene_jpeg"]

# First seeds of four disjoint ranges: what is trained on, what thresholds are chosen on, what is measured on,
# and where the shipped pictures come from.
TRAINING_SEEDS, VALIDATION_SEEDS, HELD_OUT_SEEDS, PICTURE_SEEDS = 0, 1_000_000, 2_000_000, 3_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSet:
    """`images` (N, H, W, 3) uint8; `boxes[i]` (n, 5) float32: class index, left, top, right, bottom in pixels."""

    images: np.ndarray
    boxes: tuple[np.ndarray, ...]

    def save(self, path: Path) -> None:
        counts = np.asarray([len(b) for b in self.boxes])
        np.savez(path, images=self.images, boxes=np.concatenate(self.boxes), counts=counts)

    @classmethod
    def load(cls, path: Path) -> SceneSet:
        with np.load(path) as file:
            boxes = np.split(file["boxes"], np.cumsum(file["counts"])[:-1])
            return cls(images=file["images"], boxes=tuple(boxes))


def scene_jpeg(scene: Scene, *, quality: int, subsampling: int) -> bytes:
    """Encode the picture; `subsampling` 0 keeps full chroma, 2 halves it both ways as most cameras do."""
    stream = io.BytesIO()
    scene.image.save(stream, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    return stream.getvalue()


def _render_one(seed: int, *, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw at twice the network size, in one of several shapes, and shrink as the served model will."""
    rng = np.random.default_rng([seed, 7])
    shape = (2 * width, 2 * height) if rng.random() < 0.5 else (round(2 * height * rng.uniform(1.55, 1.85)), 2 * height)
    scene = draw_scene(seed, width=shape[0], height=shape[1])
    image = scene.image
    if rng.random() < 0.6:
        image = Image.open(io.BytesIO(scene_jpeg(scene, quality=int(rng.integers(70, 96)), subsampling=0)))
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    sx, sy = width / shape[0], height / shape[1]
    rows = [(CLASSES.index(b.label), b.left * sx, b.top * sy, b.right * sx, b.bottom * sy) for b in scene.boxes]
    return small, np.asarray(rows, dtype=np.float32).reshape(-1, 5)


def render(first_seed: int, count: int, *, width: int, height: int, processes: int = 2) -> SceneSet:
    """Draw `count` scenes from `first_seed` on."""
    with ProcessPoolExecutor(processes) as pool:
        drawn = list(
            pool.map(
                partial(_render_one, width=width, height=height),
                range(first_seed, first_seed + count),
                chunksize=32,
            )
        )
    return SceneSet(images=np.stack([d[0] for d in drawn]), boxes=tuple(d[1] for d in drawn))
