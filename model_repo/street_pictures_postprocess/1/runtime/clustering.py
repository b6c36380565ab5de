"""Candidates into boxes: DBSCAN, NMS, and the hybrid of both, with tao_deploy's rules (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .candidates import Candidates, Float64, Index, Mask
from .dbscan import UNCLUSTERED, dbscan
from .nms import nms
from .settings import ClassSettings, class_settings
from .values import DetectorParams

__all__ = ["Boxes", "cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes in network pixels, not clipped, not sorted by confidence; arrays of one length.

    sides: (4, N), the rows being left, top, right and bottom. first: the index of the candidate that a box begins
    with, or is; it ranks boxes of the same confidence.
    """

    sides: Float64
    score: Float64
    raw_score: Float64
    class_id: Index
    group: Index
    first: Index


def cluster(candidates: Candidates, params: DetectorParams) -> Boxes:
    """Cluster each class of each image by its own algorithm; all of them in one pass."""
    settings = class_settings(params)
    # What NMS chooses among: the classes that know nothing else, and what DBSCAN believes of the hybrid ones.
    direct = settings.is_nms.take(candidates.class_id)
    if direct.all():
        return _suppress(candidates, direct, settings)
    grouped = (~direct).nonzero()[0]
    clusters = _clusters(candidates, grouped, settings)
    is_hybrid = settings.is_hybrid.take(clusters.boxes.class_id)
    averaged = _take(clusters.boxes, clusters.kept & ~is_hybrid)
    if not is_hybrid.any() and len(grouped) == len(candidates):
        return averaged
    believed = np.flatnonzero((clusters.kept & is_hybrid).take(clusters.number))
    direct[clusters.member.take(believed)] = True
    return _joined(averaged, _suppress(candidates, direct, settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clusters:
    """All clusters that DBSCAN found: `boxes`, and whether each passes the thresholds.

    member: (M,) the candidates that are in one; number: (M,) in which.
    """

    boxes: Boxes
    kept: Mask
    member: Index
    number: Index


def _clusters(candidates: Candidates, grouped: Index, settings: ClassSettings) -> _Clusters:
    """Cluster some of the candidates by DBSCAN; a cluster's box is the coverage-weighted mean of its members."""
    boxes = candidates if len(grouped) == len(candidates) else candidates.take(grouped)
    label = dbscan(
        boxes,
        eps=settings.dbscan_eps.take(boxes.class_id),
        needed=settings.dbscan_min_samples.take(boxes.class_id),
    )
    is_first = label == np.arange(len(label))
    first, member = is_first.nonzero()[0], (label != UNCLUSTERED).nonzero()[0]
    number = (is_first.cumsum() - 1).take(label.take(member))
    coverage = boxes.coverage.take(member)
    total = np.bincount(number, weights=coverage, minlength=len(first)).astype(np.float64, copy=False)
    sides = np.empty((4, len(first)))
    for row, side in enumerate(boxes.sides.take(member, axis=1) * coverage):
        sides[row] = np.bincount(number, weights=side, minlength=len(first))
    sides /= total
    highest = np.zeros(len(first))
    np.maximum.at(highest, number, coverage)
    class_id = boxes.class_id.take(first)
    found = Boxes(
        sides=sides,
        score=np.minimum(highest, 1.0),
        raw_score=_confidence(total, number, coverage, settings.is_mean_cov.take(class_id)),
        class_id=class_id,
        group=boxes.group.take(first),
        first=grouped.take(first),
    )
    # The height is that of the mean as it is, before anything is clipped. A confidence that is no number stays below.
    kept = found.raw_score >= settings.dbscan_confidence_threshold.take(class_id)
    kept &= found.sides[3] - found.sides[1] > settings.minimum_bounding_box_height.take(class_id)
    return _Clusters(boxes=found, kept=kept, member=grouped.take(member), number=number)


def _confidence(total: Float64, number: Index, coverage: Float64, is_mean_cov: Mask) -> Float64:
    """TAO's confidence of each cluster: the sum of coverage, or for `mean_cov` (mean - min) / (max - min).

    `mean_cov` of a single box is 0/0: not a number, which passes no threshold.
    """
    if not is_mean_cov.any():
        return total
    low, high = np.full(len(total), np.inf), np.full(len(total), -np.inf)
    np.minimum.at(low, number, coverage)
    np.maximum.at(high, number, coverage)
    mean = total / np.bincount(number, minlength=len(total))
    return np.where(is_mean_cov, (mean - low) / (high - low), total)


def _suppress(candidates: Candidates, among: Mask, settings: ClassSettings) -> Boxes:
    """Choose among some of the candidates by NMS; each box carries its own coverage."""
    enough = candidates.coverage > settings.nms_confidence_threshold.take(candidates.class_id)
    index = (among & enough).nonzero()[0]
    boxes = candidates.take(index)
    stays = nms(boxes, limit=settings.nms_iou_threshold.take(boxes.class_id))
    boxes = boxes.take(stays)
    return Boxes(
        sides=boxes.sides,
        score=np.minimum(boxes.coverage, 1.0),
        raw_score=boxes.coverage,
        class_id=boxes.class_id,
        group=boxes.group,
        first=index.take(stays),
    )


def _take(boxes: Boxes, mask: Mask) -> Boxes:
    index = mask.nonzero()[0]
    return Boxes(
        sides=boxes.sides.take(index, axis=1),
        score=boxes.score.take(index),
        raw_score=boxes.raw_score.take(index),
        class_id=boxes.class_id.take(index),
        group=boxes.group.take(index),
        first=boxes.first.take(index),
    )


def _joined(a: Boxes, b: Boxes) -> Boxes:
    return Boxes(
        sides=np.concatenate((a.sides, b.sides), axis=1),
        score=np.concatenate((a.score, b.score)),
        raw_score=np.concatenate((a.raw_score, b.raw_score)),
        class_id=np.concatenate((a.class_id, b.class_id)),
        group=np.concatenate((a.group, b.group)),
        first=np.concatenate((a.first, b.first)),
    )
