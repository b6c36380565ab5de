"""What a detector needs to turn grids into boxes, and the boxes.

`DetectorParams` is written beside a served model as `params.json`; it is the only thing the runtime knows
of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassParams", "Clustering", "ConfidenceModel", "Detections", "DetectorParams", "Float32"]

Clustering: TypeAlias = Literal["dbscan", "nms", "hybrid"]
ConfidenceModel: TypeAlias = Literal["aggregate_cov", "mean_cov"]
Float32: TypeAlias = NDArray[np.float32]

FAMILY = "detectnet_v2"
CLUSTERINGS = ("dbscan", "nms", "hybrid")
CONFIDENCE_MODELS = ("aggregate_cov", "mean_cov")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassParams:
    """Clustering of one target class; thresholds apply to the raw score, heights are network pixels."""

    name: str
    clustering: Clustering = "dbscan"
    coverage_threshold: float = 0.005
    minimum_bounding_box_height: int = 0
    dbscan_eps: float = 0.15
    dbscan_min_samples: int = 1
    dbscan_confidence_threshold: float = 0.0
    nms_iou_threshold: float = 0.0  # 0 reads as 0.3, as TAO does
    nms_confidence_threshold: float = 0.0  # 0 reads as 0.1, as TAO does
    confidence_model: ConfidenceModel = "aggregate_cov"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorParams:
    """Everything `preprocess` and `postprocess` must know; `classes` are in the order of the coverage channels."""

    channels: int
    height: int
    width: int
    bbox_scale: float
    bbox_offset: float
    # Compared but not hashed: what is derived from the parameters is looked up for every image, by the same object.
    classes: tuple[ClassParams, ...] = field(hash=False)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> DetectorParams:
        """Read `params.json`; raises ValueError naming the field that is missing or makes no sense."""
        family = document.get("family")
        if family != FAMILY:
            raise ValueError(f"family is {family!r}, and this runtime reads {FAMILY!r}")
        size = _mapping(document, "input")
        classes = document.get("classes")
        if not isinstance(classes, list | tuple) or not classes:
            raise ValueError("classes is missing or empty")
        params = cls(
            channels=int(_number(size, "channels")),
            height=int(_number(size, "height")),
            width=int(_number(size, "width")),
            bbox_scale=_number(document, "bbox_scale"),
            bbox_offset=_number(document, "bbox_offset"),
            classes=tuple(_class_params(entry, index) for index, entry in enumerate(classes)),
        )
        if params.channels not in (1, 3):
            raise ValueError(f"input.channels is {params.channels}, not 1 or 3")
        if params.height < 1 or params.width < 1:
            raise ValueError(f"input is {params.width}x{params.height}")
        return params

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document `from_dict` reads."""
        return {
            "family": FAMILY,
            "input": {"channels": self.channels, "height": self.height, "width": self.width},
            "bbox_scale": self.bbox_scale,
            "bbox_offset": self.bbox_offset,
            "classes": [{name: getattr(entry, name) for name in _CLASS_FIELDS} for entry in self.classes],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Boxes of one image as parallel arrays, sorted by `raw_score`, highest first.

    xyxy: (N, 4) float32, pixels of the original image. score: (N,) float32 in [0, 1], the largest coverage
    in the cluster (for NMS the box's own). raw_score: (N,) float32, TAO's confidence (for DBSCAN a sum of
    coverage that may exceed 1); thresholds apply to it. class_id: (N,) int64, index into the classes.
    """

    xyxy: Float32
    score: Float32
    raw_score: Float32
    class_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.score)


_CLASS_FIELDS = tuple(ClassParams.__dataclass_fields__)


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is missing or not an object")
    return value


def _number(document: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a number")
    return float(value)


def _class_params(entry: Any, index: int) -> ClassParams:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise ValueError(f"classes[{index}] has no name")
    defaults = ClassParams(name=entry["name"])
    clustering = entry.get("clustering", defaults.clustering)
    model = entry.get("confidence_model", defaults.confidence_model)
    if clustering not in CLUSTERINGS:
        raise ValueError(f"clustering of class {defaults.name!r} is {clustering!r}, not one of {CLUSTERINGS}")
    if model not in CONFIDENCE_MODELS:
        raise ValueError(f"confidence_model of class {defaults.name!r} is {model!r}, not one of {CONFIDENCE_MODELS}")

    def number(name: str) -> float:
        return _number(entry, name, getattr(defaults, name))

    return ClassParams(
        name=defaults.name,
        clustering=cast(Clustering, clustering),
        coverage_threshold=number("coverage_threshold"),
        minimum_bounding_box_height=int(number("minimum_bounding_box_height")),
        dbscan_eps=number("dbscan_eps"),
        dbscan_min_samples=int(number("dbscan_min_samples")),
        dbscan_confidence_threshold=number("dbscan_confidence_threshold"),
        nms_iou_threshold=number("nms_iou_threshold"),
        nms_confidence_threshold=number("nms_confidence_threshold"),
        confidence_model=cast(ConfidenceModel, model),
    )
