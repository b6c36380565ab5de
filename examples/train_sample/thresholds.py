"""Clustering settings chosen on validation scenes, one set per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from accuracy import Found, average_precision, detect, match
from recipe import ClassRecipe, Clustering, Recipe

__all__ = ["choose_clusterings", "detections_of", "truths_of"]

_COVERAGE = (0.1, 0.2, 0.3, 0.4, 0.5)
_EPS = (0.25, 0.35, 0.45, 0.55)
_START = Clustering(
    coverage_threshold=0.2,
    dbscan_eps=0.35,
    dbscan_min_samples=1,
    dbscan_confidence_threshold=0.0,
    minimum_bounding_box_height=4,
)
MIN_IOU = 0.5


def truths_of(boxes: Sequence[np.ndarray], class_index: int) -> list[np.ndarray]:
    """The true boxes (n, 4) of one class, picture by picture."""
    return [rows[rows[:, 0] == class_index, 1:] for rows in boxes]


def detections_of(
    grids: tuple[np.ndarray, np.ndarray], class_index: int, clustering: Clustering, recipe: Recipe
) -> list[Found]:
    """Cluster one class in every picture; `grids` are coverage (N, K, h, w) and bbox (N, 4K, h, w)."""
    coverage, bbox = grids
    return [
        detect(
            coverage[n, class_index],
            bbox[n, 4 * class_index : 4 * class_index + 4],
            clustering,
            scale=recipe.bbox_scale,
            offset=recipe.bbox_offset,
            size=(recipe.width, recipe.height),
        )
        for n in range(len(coverage))
    ]


def _best_confidence(found: Sequence[Found], truths: Sequence[np.ndarray]) -> float:
    """The confidence threshold with the highest F1; in the middle of the gap below it, so as not to sit on a sample."""
    hits = np.concatenate([match(f, t, min_iou=MIN_IOU) for f, t in zip(found, truths, strict=True)])
    confidence = np.concatenate([f.confidence for f in found])
    order = np.argsort(-confidence, kind="stable")
    true, count = np.cumsum(hits[order]), np.arange(1, len(order) + 1)
    best = int(np.argmax(2 * true / (count + sum(len(t) for t in truths))))
    ranked = confidence[order]
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return round(float((ranked[best] + below) / 2), 2)


def choose_clusterings(
    grids: tuple[np.ndarray, np.ndarray], boxes: Sequence[np.ndarray], classes: Sequence[ClassRecipe], recipe: Recipe
) -> dict[str, Clustering]:
    """Pick coverage threshold and eps by average precision, then the confidence threshold by F1."""
    chosen: dict[str, Clustering] = {}
    for k, entry in enumerate(classes):
        truths = truths_of(boxes, k)
        candidates = [replace(_START, coverage_threshold=c, dbscan_eps=e) for c in _COVERAGE for e in _EPS]
        scored = [
            (average_precision(detections_of(grids, k, c, recipe), truths, min_iou=MIN_IOU), c) for c in candidates
        ]
        best = max(scored, key=lambda item: item[0])[1]
        threshold = _best_confidence(detections_of(grids, k, best, recipe), truths)
        chosen[entry.name] = replace(best, dbscan_confidence_threshold=threshold)
    return chosen
