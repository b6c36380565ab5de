"""What `tao2serve.runtime.postprocess` must give, in plain, slow loops: the rules of docs/architecture.md.

Numbers are Python's floats; only decoding rounds to float32, as the runtime does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tao2serve.runtime import ClassParams, DetectorParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One candidate, or one detection in pixels of the network."""

    sides: tuple[float, float, float, float]
    coverage: float
    first: int  # index among its class's candidates
    raw_score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One line of the answer; xyxy in pixels of the original image."""

    class_id: int
    raw_score: float
    score: float
    xyxy: tuple[float, float, float, float]


def plain_postprocess(
    cov: np.ndarray, bbox: np.ndarray, params: DetectorParams, *, image_size: tuple[int, int], absolute: bool = False
) -> list[Detection]:
    """Decode and cluster one image's grids."""
    found = []
    for class_id, entry in enumerate(params.classes):
        boxes = candidates(cov[class_id], bbox[4 * class_id : 4 * class_id + 4], params, entry, absolute=absolute)
        found += [(class_id, box) for box in cluster(boxes, entry)]
    found.sort(key=lambda item: (-item[1].raw_score, item[0], item[1].first))
    return [
        Detection(
            class_id=class_id,
            raw_score=box.raw_score,
            score=min(max(box.coverage, 0.0), 1.0),
            xyxy=scaled(box.sides, params, image_size),
        )
        for class_id, box in found
    ]


def candidates(
    cov: np.ndarray, bbox: np.ndarray, params: DetectorParams, entry: ClassParams, *, absolute: bool
) -> list[Box]:
    """Cells above the threshold, column by column."""
    rows, columns = cov.shape
    found: list[Box] = []
    for x in range(columns):
        for y in range(rows):
            if not cov[y, x] > np.float32(entry.coverage_threshold):
                continue
            sides = [bbox[side, y, x] for side in range(4)]
            if not absolute:
                sides = decoded(sides, x=x, y=y, rows=rows, columns=columns, params=params)
            values = [float(side) for side in sides]
            if all(math.isfinite(value) for value in (*values, float(cov[y, x]))):
                left, top, right, bottom = values
                found.append(Box(sides=(left, top, right, bottom), coverage=float(cov[y, x]), first=len(found)))
    return found


def decoded(
    offsets: list[np.float32], *, x: int, y: int, rows: int, columns: int, params: DetectorParams
) -> list[np.float32]:
    """Offsets to pixels of the network, every product and every sum rounded to float32."""
    scale = np.float32(params.bbox_scale)
    centre_x = np.float32(x * stride(params.width, columns) + params.bbox_offset)
    centre_y = np.float32(y * stride(params.height, rows) + params.bbox_offset)
    with np.errstate(all="ignore"):
        left, top, right, bottom = (offset * scale for offset in offsets)
        return [centre_x - left, centre_y - top, centre_x + right, centre_y + bottom]


def stride(pixels: int, cells: int) -> float:
    """Pixels of the input to a cell, also where they are no whole number."""
    return pixels / cells


def iou(a: Box, b: Box, *, pixel: float, smoothing: float) -> float:
    """Intersection over union, sides `pixel` longer, `smoothing` added to the union."""
    width = max(min(a.sides[2], b.sides[2]) - max(a.sides[0], b.sides[0]) + pixel, 0.0)
    height = max(min(a.sides[3], b.sides[3]) - max(a.sides[1], b.sides[1]) + pixel, 0.0)
    shared = width * height
    union = area(a, pixel=pixel) + area(b, pixel=pixel) - shared + smoothing
    return shared / union if shared > 0 else 0.0


def area(box: Box, *, pixel: float) -> float:
    left, top, right, bottom = box.sides
    return (right - left + pixel) * (bottom - top + pixel)


def cluster(boxes: list[Box], entry: ClassParams) -> list[Box]:
    if entry.clustering == "nms":
        return nms(boxes, entry)
    clusters = dbscan(boxes, entry)
    averages = [average(members, entry) for members in clusters]
    if entry.clustering == "dbscan":
        return [box for box in averages if passes(box, entry)]
    return nms(
        [box for members, box in zip(clusters, averages, strict=True) if passes(box, entry) for box in members], entry
    )


def dbscan(boxes: list[Box], entry: ClassParams) -> list[list[Box]]:
    """Clusters in the order of their first core box; members in the order of the grid."""
    eps = entry.dbscan_eps + 1e-12
    near = [
        [n for n in range(len(boxes)) if 1.0 - iou(box, boxes[n], pixel=0.0, smoothing=0.01) <= eps] for box in boxes
    ]
    needed = max(int(entry.dbscan_min_samples), 1)
    core = [sum(boxes[n].coverage for n in neighbours) >= needed for neighbours in near]
    cluster_of: dict[int, int] = {}
    count = 0
    for start in range(len(boxes)):
        if not core[start] or start in cluster_of:
            continue
        # Everything that core boxes reach from here, unless an earlier cluster has it.
        reached = [start]
        cluster_of[start] = count
        while reached:
            for n in near[reached.pop()]:
                if n not in cluster_of:
                    cluster_of[n] = count
                    if core[n]:
                        reached.append(n)
        count += 1
    return [[boxes[n] for n in range(len(boxes)) if cluster_of.get(n) == number] for number in range(count)]


def average(members: list[Box], entry: ClassParams) -> Box:
    """The coverage-weighted mean, with the confidence of the cluster; `first` is the first member."""
    coverage = [box.coverage for box in members]
    total = sum(coverage)
    left, top, right, bottom = (sum(box.coverage * box.sides[side] for box in members) / total for side in range(4))
    confidence = total
    if entry.confidence_model == "mean_cov":
        spread = max(coverage) - min(coverage)
        confidence = (total / len(coverage) - min(coverage)) / spread if spread else math.nan
    return Box(sides=(left, top, right, bottom), coverage=max(coverage), first=members[0].first, raw_score=confidence)


def passes(box: Box, entry: ClassParams) -> bool:
    height = box.sides[3] - box.sides[1]
    return box.raw_score >= entry.dbscan_confidence_threshold and height > entry.minimum_bounding_box_height


def nms(boxes: list[Box], entry: ClassParams) -> list[Box]:
    """The best covered box, then the best of those it does not suppress, and so on."""
    limit = entry.nms_iou_threshold or 0.3
    least = entry.nms_confidence_threshold or 0.1
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: (-box.coverage, box.first)):
        if box.coverage > least and not any(iou(box, other, pixel=1.0, smoothing=0.0) > limit for other in kept):
            kept.append(box)
    return [Box(sides=box.sides, coverage=box.coverage, first=box.first, raw_score=box.coverage) for box in kept]


def scaled(
    sides: tuple[float, float, float, float], params: DetectorParams, image_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Clip to the network's input, and scale to the original image."""
    limits = (params.width, params.height, params.width, params.height)
    scales = (image_size[0] / params.width, image_size[1] / params.height) * 2
    left, top, right, bottom = (
        min(max(side, 0.0), limit) * scale for side, limit, scale in zip(sides, limits, scales, strict=True)
    )
    return left, top, right, bottom
