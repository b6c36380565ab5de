"""Candidates into boxes: DBSCAN, NMS, and the hybrid of both, with tao_deploy's rules (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates, Float64, Index, neighbour_pairs, overlap
from .values import ClassParams, DetectorParams

UNCLUSTERED = -1
# What TAO reads an absent (zero) NMS threshold as.
DEFAULT_NMS_IOU_THRESHOLD = 0.3
DEFAULT_NMS_CONFIDENCE_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes in network pixels, not clipped, not sorted; arrays of one length."""

    ltrb: Float64
    score: Float64
    raw_score: Float64
    class_id: Index


def cluster(candidates: Candidates, params: DetectorParams) -> Boxes:
    """Cluster each class by its own algorithm."""
    by_dbscan = _mask(candidates, params, lambda entry: entry.clustering in ("dbscan", "hybrid"))
    grouped = candidates.take(by_dbscan)
    clusters = _dbscan(grouped, params)
    dense = _mask(grouped, params, lambda entry: entry.clustering == "dbscan")
    averaged = _average(grouped.take(dense), clusters[dense], params)
    # Hybrid: DBSCAN says which candidates are believed, NMS chooses among them.
    believed = grouped.take(~dense & _surviving(grouped, clusters, params))
    direct = candidates.take(~by_dbscan)
    return _join(averaged, _nms(believed, params), _nms(direct, params))


def _dbscan(boxes: Candidates, params: DetectorParams) -> Index:
    """Label each candidate with the index of its cluster's first core candidate, or UNCLUSTERED."""
    # NVIDIA adds 1e-12 to eps, so a distance equal to it is within.
    eps = _per_box(boxes, params, lambda entry: entry.dbscan_eps + 1e-12)
    needed = _per_box(boxes, params, lambda entry: max(int(entry.dbscan_min_samples), 1))
    i, j = neighbour_pairs(boxes, eps)
    # A box is its own neighbour only if its own distance is within eps; tiny and inverted ones are not.
    own = 1.0 - overlap(boxes.ltrb, boxes.ltrb, smoothing=0.01) <= eps
    weight = np.where(own, boxes.coverage, 0.0) + np.bincount(i, weights=boxes.coverage[j], minlength=len(boxes))
    core = weight >= needed
    label = np.where(core, np.arange(len(boxes)), len(boxes))
    linked = core[i] & core[j]
    label = _spread_minimum(label, i[linked], j[linked])
    # A border candidate joins the lowest-numbered cluster it touches.
    border = ~core[i] & core[j]
    np.minimum.at(label, i[border], label[j[border]])
    return np.where(label == len(boxes), UNCLUSTERED, label)


def _spread_minimum(label: Index, i: Index, j: Index) -> Index:
    """Give every connected component (edges i-j) the smallest label in it."""
    while True:
        before = label.copy()
        np.minimum.at(label, i, label[j])
        inside = label < len(label)
        label[inside] = label[label[inside]]  # jump to the label of the label: long chains in few rounds
        if np.array_equal(before, label):
            return label


def _average(boxes: Candidates, label: Index, params: DetectorParams) -> Boxes:
    """One box a cluster: the coverage-weighted mean, kept by confidence and by its unclipped height."""
    kept = label != UNCLUSTERED
    boxes, label = boxes.take(kept), label[kept]
    _, member = np.unique(label, return_inverse=True)
    count = int(member.max(initial=-1)) + 1
    total = np.bincount(member, weights=boxes.coverage, minlength=count).astype(np.float64)
    ltrb = np.stack(
        [np.bincount(member, weights=boxes.coverage * side, minlength=count) / total for side in boxes.ltrb.T],
        axis=1,
    )
    highest = np.zeros(count)
    np.maximum.at(highest, member, boxes.coverage)
    class_id = np.zeros(count, dtype=np.int64)
    class_id[member] = boxes.class_id
    merged = Candidates(ltrb=ltrb, coverage=total, class_id=class_id)
    confidence = _confidence(boxes, member, merged, params)
    with np.errstate(invalid="ignore"):
        keep = confidence >= _per_box(merged, params, lambda entry: entry.dbscan_confidence_threshold)
    keep &= ltrb[:, 3] - ltrb[:, 1] > _per_box(merged, params, lambda entry: entry.minimum_bounding_box_height)
    return Boxes(
        ltrb=ltrb[keep],
        score=np.clip(highest[keep], 0.0, 1.0),
        raw_score=confidence[keep],
        class_id=class_id[keep],
    )


def _confidence(boxes: Candidates, member: Index, merged: Candidates, params: DetectorParams) -> Float64:
    """TAO's confidence of each cluster: the sum of coverage, or for `mean_cov` (mean - min) / (max - min).

    `mean_cov` of a single box is 0/0: not a number, which passes no threshold.
    """
    total = merged.coverage
    count = np.bincount(member, minlength=len(merged))
    low, high = np.full(len(merged), np.inf), np.full(len(merged), -np.inf)
    np.minimum.at(low, member, boxes.coverage)
    np.maximum.at(high, member, boxes.coverage)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (total / count - low) / (high - low)
    return np.where(_mask(merged, params, lambda entry: entry.confidence_model == "mean_cov"), spread, total)


def _surviving(boxes: Candidates, label: Index, params: DetectorParams) -> NDArray[np.bool_]:
    """Members of clusters that pass the DBSCAN thresholds."""
    if not len(boxes):
        return np.zeros(0, dtype=np.bool_)
    survivors = np.zeros(len(boxes), dtype=np.bool_)
    for first in np.unique(label[label != UNCLUSTERED]):
        members = label == first
        group = boxes.take(members)
        survivors |= members & bool(len(_average(group, label[members], params).score))
    return survivors


def _nms(boxes: Candidates, params: DetectorParams) -> Boxes:
    """Greedy suppression class by class, best coverage first; ties go to the earlier candidate.

    Areas count one pixel more on each side, as tao_deploy's do. Each kept box carries its own coverage.
    """
    kept: list[Index] = []
    for class_id, entry in enumerate(params.classes):
        confidence = entry.nms_confidence_threshold or DEFAULT_NMS_CONFIDENCE_THRESHOLD
        limit = entry.nms_iou_threshold or DEFAULT_NMS_IOU_THRESHOLD
        queue = np.flatnonzero((boxes.class_id == class_id) & (boxes.coverage > confidence))
        queue = queue[np.argsort(-boxes.coverage[queue], kind="stable")]
        while len(queue):
            best, queue = queue[:1], queue[1:]
            kept.append(best)
            shared = overlap(boxes.ltrb[best], boxes.ltrb[queue], pixel=1.0)
            queue = queue[shared <= limit]
    index = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    coverage = boxes.coverage[index]
    return Boxes(
        ltrb=boxes.ltrb[index],
        score=np.clip(coverage, 0.0, 1.0),
        raw_score=coverage,
        class_id=boxes.class_id[index],
    )


def _per_box(boxes: Candidates, params: DetectorParams, value: Callable[[ClassParams], float]) -> Float64:
    return np.array([value(entry) for entry in params.classes], dtype=np.float64)[boxes.class_id]


def _mask(boxes: Candidates, params: DetectorParams, test: Callable[[ClassParams], bool]) -> NDArray[np.bool_]:
    return np.array([test(entry) for entry in params.classes], dtype=np.bool_)[boxes.class_id]


def _join(*parts: Boxes) -> Boxes:
    return Boxes(
        ltrb=np.concatenate([part.ltrb for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        raw_score=np.concatenate([part.raw_score for part in parts]),
        class_id=np.concatenate([part.class_id for part in parts]),
    )
