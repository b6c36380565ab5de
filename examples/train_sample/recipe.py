"""Every number a training run depends on; the experiment spec is written from the same values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["CLASS_RECIPES", "PRUNED", "UNPRUNED", "ClassRecipe", "Clustering", "Recipe", "learning_rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """DBSCAN settings of one class; the confidence is the cluster's sum of coverage, so it may exceed 1."""

    coverage_threshold: float
    dbscan_eps: float
    dbscan_min_samples: int
    dbscan_confidence_threshold: float
    minimum_bounding_box_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRecipe:
    """How one target class is rasterised and weighted; radii are shares of half the box."""

    name: str
    class_weight: float
    coverage_foreground_weight: float
    cov_radius: float
    bbox_min_radius: float  # grid cells: the smallest object still covers a disc of this radius
    cov_weight: float = 1.0
    bbox_weight: float = 3.0


CLASS_RECIPES = (
    ClassRecipe(name="car", class_weight=1.0, coverage_foreground_weight=0.5, cov_radius=0.6, bbox_min_radius=1.0),
    ClassRecipe(name="person", class_weight=2.0, coverage_foreground_weight=0.5, cov_radius=0.7, bbox_min_radius=1.0),
    ClassRecipe(
        name="road_sign", class_weight=3.0, coverage_foreground_weight=0.5, cov_radius=0.9, bbox_min_radius=1.0
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run. Learning rates follow TAO's soft-start annealing schedule."""

    name: str  # of the weights file
    task: str
    tags: tuple[str, ...]
    load_graph: bool
    num_epochs: int
    batch_size: int
    max_learning_rate: float
    min_learning_rate: float
    soft_start: float
    annealing: float
    seed: int = 42
    num_layers: int = 10
    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    stem: int = 16
    width: int = 384
    height: int = 224
    bbox_scale: float = 35.0
    bbox_offset: float = 0.5
    regularizer_weight: float = 3e-9
    validation_period: int = 5
    translate_max: int = 8
    hflip_probability: float = 0.5
    hue_rotation_max: float = 20.0
    saturation_shift_max: float = 0.2
    contrast_scale_max: float = 0.15

    @property
    def input_chw(self) -> tuple[int, int, int]:
        return (3, self.height, self.width)


UNPRUNED = Recipe(
    name="resnet10_street",
    task="detectnet_v2_train",
    tags=("detectnet_v2", "resnet10", "unpruned"),
    load_graph=False,
    num_epochs=16,
    batch_size=16,
    max_learning_rate=2e-3,
    min_learning_rate=1e-5,
    soft_start=0.1,
    annealing=0.4,
    validation_period=2,
)
PRUNED = replace(
    UNPRUNED,
    name="resnet10_street_pruned",
    task="detectnet_v2_retrain",
    tags=("detectnet_v2", "resnet10", "pruned"),
    load_graph=True,
    num_epochs=10,
    max_learning_rate=1.5e-3,
    annealing=0.3,
)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Learning rate at `progress` in [0, 1]: exponential rise, plateau, exponential fall."""
    low, high = recipe.min_learning_rate, recipe.max_learning_rate
    if progress < recipe.soft_start:
        share = progress / recipe.soft_start
    elif progress < recipe.annealing:
        share = 1.0
    else:
        share = (1 - progress) / (1 - recipe.annealing)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
