"""From grids to boxes to average precision, in plain numpy, for validation during training.

The figures in the manifest come from `tao2serve.runtime` instead; this module lets a training run judge itself
without the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from recipe import Clustering
from targets import grid_points

__all__ = ["Found", "average_precision", "detect", "iou_matrix", "match"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Detections of one class in one picture, most confident first: xyxy (n, 4) in pixels, confidence (n,)."""

    xyxy: np.ndarray
    confidence: np.ndarray


def iou_matrix(a: np.ndarray, b: np.ndarray, *, slack: float = 0.0) -> np.ndarray:
    """IoU of (n, 4) with (m, 4) boxes; `slack` is added to the union."""
    w = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    h = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    shared = np.clip(w, 0, None) * np.clip(h, 0, None)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return shared / np.maximum(area_a[:, None] + area_b[None, :] - shared + slack, 1e-9)


def _clusters(close: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Label the connected components of the core points; borders join their lowest-numbered neighbour, -1 is noise."""
    labels = np.full(len(core), -1)
    for start in np.nonzero(core)[0]:
        if labels[start] >= 0:
            continue
        number, frontier = labels.max() + 1, [int(start)]
        labels[start] = number
        while frontier:
            for j in np.nonzero(close[frontier.pop()] & core & (labels < 0))[0]:
                labels[j] = number
                frontier.append(int(j))
    for i in np.nonzero(~core)[0]:
        near = labels[close[i] & core]
        if len(near):
            labels[i] = near.min()
    return labels


def detect(
    coverage: np.ndarray,
    bbox: np.ndarray,
    clustering: Clustering,
    *,
    scale: float,
    offset: float,
    size: tuple[int, int],
) -> Found:
    """Cluster one class: coverage (h, w) after the sigmoid, bbox (4, h, w); `size` is the input's (width, height)."""
    x, y = grid_points(*coverage.shape, offset=offset)
    columns, rows = np.nonzero(clustering.coverage_threshold < coverage.T)  # column by column, as TAO orders them
    weight = coverage[rows, columns]
    near = bbox[:, rows, columns] * scale
    boxes = np.stack([x[columns] - near[0], y[rows] - near[1], x[columns] + near[2], y[rows] + near[3]], axis=1)
    if not len(boxes):
        return Found(xyxy=np.zeros((0, 4), np.float32), confidence=np.zeros(0, np.float32))
    close = (1 - iou_matrix(boxes, boxes, slack=0.01)) <= clustering.dbscan_eps + 1e-12
    core = close @ weight >= max(clustering.dbscan_min_samples, 1)
    labels = _clusters(close, core)
    found, confidences = [], []
    for number in range(labels.max() + 1):
        members = labels == number
        mean = np.average(boxes[members], axis=0, weights=weight[members])
        confidence = float(weight[members].sum())
        if confidence < clustering.dbscan_confidence_threshold:
            continue
        if mean[3] - mean[1] > clustering.minimum_bounding_box_height:
            found.append(mean.clip(0, [size[0], size[1], size[0], size[1]]))
            confidences.append(confidence)
    order = np.argsort(confidences)[::-1]
    return Found(
        xyxy=np.asarray(found, np.float32).reshape(-1, 4)[order], confidence=np.asarray(confidences, np.float32)[order]
    )


def match(found: Found, truth: np.ndarray, *, min_iou: float) -> np.ndarray:
    """Say for each detection whether it is the first to meet an unmatched true box (n, 4) at `min_iou`."""
    hits = np.zeros(len(found.xyxy), bool)
    if len(truth) and len(hits):
        overlaps, taken = iou_matrix(found.xyxy, truth), np.zeros(len(truth), bool)
        for i, row in enumerate(overlaps):
            best = int(np.argmax(np.where(taken, -1, row)))
            if not taken[best] and row[best] >= min_iou:
                hits[i] = taken[best] = True
    return hits


def average_precision(found: Sequence[Found], truths: Sequence[np.ndarray], *, min_iou: float) -> float:
    """Area under the precision-recall curve (every point, precision made monotone), over all pictures together."""
    hits = np.concatenate([match(f, t, min_iou=min_iou) for f, t in zip(found, truths, strict=True)])
    order = np.argsort(-np.concatenate([f.confidence for f in found]), kind="stable")
    total = sum(len(t) for t in truths)
    if not total or not len(hits):
        return 0.0
    true = np.cumsum(hits[order])
    recall = true / total
    precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
