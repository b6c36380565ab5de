"""Variations of a batch: mirroring, small shifts, and colour, as the experiment spec describes them."""

from __future__ import annotations

import math

import numpy as np
import torch
from dataset import SceneSet
from recipe import Recipe

__all__ = ["as_input", "augmented_batch"]

# Rotation about the grey axis is a change of hue that leaves greys alone.
_GREY_AXIS = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
_LUMA = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
_MIN_VISIBLE = 0.6


def as_input(images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [0, 1]; memory stays channels last, which is faster."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)


def _moved(
    image: np.ndarray, rows: np.ndarray, rng: np.random.Generator, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror and shift one picture with its boxes; boxes that lose too much at the border go."""
    height, width = image.shape[:2]
    rows = rows.copy()
    if rng.random() < recipe.hflip_probability:
        image = image[:, ::-1]
        rows[:, [1, 3]] = width - rows[:, [3, 1]]
    dx, dy = (int(v) for v in rng.integers(-recipe.translate_max, recipe.translate_max + 1, 2))
    margin = recipe.translate_max
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    image = padded[margin - dy : margin - dy + height, margin - dx : margin - dx + width]
    rows[:, [1, 3]] += dx
    rows[:, [2, 4]] += dy
    area = (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, width)
    rows[:, [2, 4]] = rows[:, [2, 4]].clip(0, height)
    left = (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])
    return image, rows[left > _MIN_VISIBLE * area]


def _recolored(images: torch.Tensor, rng: np.random.Generator, recipe: Recipe) -> torch.Tensor:
    """Rotate hue, scale saturation and contrast of (N, 3, H, W), one random 3x3 matrix per picture."""
    count = len(images)
    matrices, shifts = [], []
    for _ in range(count):
        angle = math.radians(float(rng.uniform(-recipe.hue_rotation_max, recipe.hue_rotation_max)))
        saturation = 1 + float(rng.uniform(-recipe.saturation_shift_max, recipe.saturation_shift_max))
        contrast = 1 + float(rng.uniform(-recipe.contrast_scale_max, recipe.contrast_scale_max))
        hue = torch.matrix_exp(angle * _GREY_AXIS)
        matrix = contrast * (saturation * torch.eye(3) + (1 - saturation) * _LUMA) @ hue
        matrices.append(matrix)
        shifts.append(0.5 * (1 - contrast))
    flat = torch.einsum("nij,nhwj->nhwi", torch.stack(matrices), images.permute(0, 2, 3, 1))
    flat += torch.tensor(shifts)[:, None, None, None]
    return flat.clamp_(0, 1).permute(0, 3, 1, 2)


def augmented_batch(
    scenes: SceneSet, indices: np.ndarray, rng: np.random.Generator, recipe: Recipe
) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Return images (N, 3, H, W) and the moved boxes of each."""
    moved = [_moved(scenes.images[i], scenes.boxes[i], rng, recipe) for i in indices]
    images = as_input(np.stack([m[0] for m in moved]))
    return _recolored(images, rng, recipe), [m[1] for m in moved]
