"""Labels of the sample pictures, and how well detections match them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    name: str
    box: Box


def read_kitti(path: Path) -> tuple[Label, ...]:
    """Read a KITTI label file: class, three fields, then x1 y1 x2 y2."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(
        Label(name=row[0], box=(float(row[4]), float(row[5]), float(row[6]), float(row[7])))
        for row in rows
    )  # fmt: skip


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def unmatched(labels: Iterable[Label], predictions: Iterable[Mapping[str, Any]]) -> tuple[list[Label], list[Any]]:
    """Return labels without a detection of their class at IoU 0.5, and detections without a label."""
    left = list(predictions)
    missing = []
    for label in labels:
        twins = [one for one in left if one["label"] == label.name and iou(label.box, tuple(one["bbox"])) >= 0.5]
        if twins:
            left.remove(max(twins, key=lambda one: iou(label.box, tuple(one["bbox"]))))
        else:
            missing.append(label)
    return missing, left
