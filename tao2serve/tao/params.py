"""The experiment spec → `params.json`, the settings that decoding needs (`runtime.DetectorParams`)."""

from __future__ import annotations

import logging
import math
from typing import Any

from tao2serve.errors import InputError
from tao2serve.tao.spec_values import ClassHandling, ExperimentSpec

__all__ = ["to_params"]

logger = logging.getLogger(__name__)

# What TAO itself takes where the file is silent (docs/tao.md).
_BBOX_SCALE = 35.0
_BBOX_OFFSET = 0.5
_NMS_IOU_THRESHOLD = 0.3
_NMS_CONFIDENCE_THRESHOLD = 0.1
_CONFIDENCE_MODELS = ("aggregate_cov", "mean_cov")


def to_params(spec: ExperimentSpec) -> dict[str, Any]:
    """Return the `params.json` document, with TAO's defaults filled in; classes in channel order.

    Raises InputError for a class without clustering, an unknown algorithm or confidence model, or a bbox
    scale that is not positive.
    """
    scale = _BBOX_SCALE if spec.bbox_scale is None else spec.bbox_scale
    offset = _BBOX_OFFSET if spec.bbox_offset is None else spec.bbox_offset
    if not 0 < scale < float("inf") or not abs(offset) < float("inf"):
        raise InputError(
            str(spec.path),
            "has no usable bbox scale and offset",
            evidence=f"scale {scale}, offset {offset}",
            hint="model_config.objective_set.bbox is usually { scale: 35.0 offset: 0.5 }",
        )
    if spec.bbox_scale is None:
        logger.info("%s gives no bbox scale: TAO's %s and offset %s are taken", spec.path.name, scale, offset)
    return {
        "family": "detectnet_v2",
        "input": {
            "channels": spec.input.channels,
            "height": spec.input.height,
            "width": spec.input.width,
        },
        "bbox_scale": scale,
        "bbox_offset": offset,
        "classes": [_class_params(spec, name, spec.handling_of(name)) for name in spec.classes],
    }


def _class_params(spec: ExperimentSpec, name: str, handling: ClassHandling) -> dict[str, Any]:
    clustering = handling.clustering
    if clustering.algorithm not in ("DBSCAN", "NMS", "HYBRID"):
        raise InputError(
            str(spec.path),
            f"has an unknown clustering algorithm for class {name}",
            evidence=clustering.algorithm,
        )
    confidence_model = handling.confidence_model or "aggregate_cov"
    if confidence_model not in _CONFIDENCE_MODELS:
        raise InputError(
            str(spec.path),
            f"has a confidence model for class {name} that is not supported",
            evidence=f"{confidence_model}; supported: {', '.join(_CONFIDENCE_MODELS)}",
        )
    numbers = (
        clustering.coverage_threshold,
        clustering.dbscan_eps,
        clustering.dbscan_confidence_threshold,
        clustering.nms_iou_threshold,
        clustering.nms_confidence_threshold,
    )
    if not all(0 <= number < math.inf for number in numbers):
        raise InputError(
            str(spec.path),
            f"has a clustering setting for class {name} that is no usable number",
            evidence=f"{clustering}",
        )
    return {
        "name": name,
        "clustering": clustering.algorithm.lower(),
        "coverage_threshold": clustering.coverage_threshold,
        "minimum_bounding_box_height": clustering.minimum_bounding_box_height,
        "dbscan_eps": clustering.dbscan_eps,
        "dbscan_min_samples": clustering.dbscan_min_samples,
        "dbscan_confidence_threshold": clustering.dbscan_confidence_threshold,
        "nms_iou_threshold": clustering.nms_iou_threshold or _NMS_IOU_THRESHOLD,
        "nms_confidence_threshold": clustering.nms_confidence_threshold or _NMS_CONFIDENCE_THRESHOLD,
        "confidence_model": confidence_model,
    }
