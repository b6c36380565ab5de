"""The settings of all classes as arrays, to be looked up by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .candidates import Float64, Mask
from .values import ClassParams, DetectorParams

__all__ = ["ClassSettings", "class_settings"]

# What TAO reads an absent (zero) NMS threshold as.
_NMS_IOU_THRESHOLD = 0.3
_NMS_CONFIDENCE_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSettings:
    """One value a class in each array; the names are those of `ClassParams`."""

    is_dbscan: Mask
    is_hybrid: Mask
    is_nms: Mask
    is_mean_cov: Mask
    minimum_bounding_box_height: Float64
    dbscan_eps: Float64
    dbscan_min_samples: Float64
    dbscan_confidence_threshold: Float64
    nms_iou_threshold: Float64
    nms_confidence_threshold: Float64


@lru_cache(maxsize=16)
def class_settings(params: DetectorParams) -> ClassSettings:
    """Gather the settings; zeros read as what TAO takes them for."""

    def numbers(value: Callable[[ClassParams], float]) -> Float64:
        return np.array([value(entry) for entry in params.classes], dtype=np.float64)

    algorithms = np.array([entry.clustering for entry in params.classes])
    models = np.array([entry.confidence_model for entry in params.classes])
    return ClassSettings(
        is_dbscan=algorithms == "dbscan",
        is_hybrid=algorithms == "hybrid",
        is_nms=algorithms == "nms",
        is_mean_cov=models == "mean_cov",
        minimum_bounding_box_height=numbers(lambda entry: entry.minimum_bounding_box_height),
        dbscan_eps=numbers(lambda entry: entry.dbscan_eps),
        dbscan_min_samples=numbers(lambda entry: max(int(entry.dbscan_min_samples), 1)),
        dbscan_confidence_threshold=numbers(lambda entry: entry.dbscan_confidence_threshold),
        nms_iou_threshold=numbers(lambda entry: entry.nms_iou_threshold or _NMS_IOU_THRESHOLD),
        nms_confidence_threshold=numbers(lambda entry: entry.nms_confidence_threshold or _NMS_CONFIDENCE_THRESHOLD),
    )
