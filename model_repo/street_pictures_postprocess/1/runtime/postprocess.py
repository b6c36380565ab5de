"""Raw grids to detections in pixels of the original image."""

from __future__ import annotations

import numpy as np

from .candidates import BoxEncoding, find_candidates
from .clustering import cluster
from .values import Detections, DetectorParams, Float32

__all__ = ["postprocess"]


def postprocess(
    cov: Float32,
    bbox: Float32,
    params: DetectorParams,
    *,
    image_size: tuple[int, int],
    boxes: BoxEncoding = "offsets",
) -> Detections:
    """Decode and cluster one image's grids.

    cov: (C, h, w) float32 after the sigmoid; bbox: (4C, h, w) float32 as the network gives it, channels
    4i..4i+3 being L, T, R, B of class i; image_size: (width, height) of the original image. With
    `boxes="absolute"` bbox holds L, T, R, B in network pixels already, which a graph exported so gives. Boxes are
    clipped to the network's input and then scaled to the image in x and y independently, as tao_deploy does.
    Raises ValueError if the grids do not fit the parameters.
    """
    classes = len(params.classes)
    if cov.ndim != 3 or cov.shape[0] != classes:
        raise ValueError(f"cov is {cov.shape}, and {classes} classes need ({classes}, h, w)")
    if bbox.shape != (4 * classes, *cov.shape[1:]):
        raise ValueError(f"bbox is {bbox.shape}, and cov {cov.shape} needs {(4 * classes, *cov.shape[1:])}")
    found = cluster(find_candidates(cov, bbox, params, boxes=boxes), params)
    order = np.argsort(-found.raw_score, kind="stable")
    limit = np.array([params.width, params.height] * 2, dtype=np.float64)
    scale = np.array([*image_size, *image_size], dtype=np.float64) / limit
    xyxy = np.clip(found.ltrb[order], 0.0, limit) * scale
    return Detections(
        xyxy=xyxy.astype(np.float32),
        score=found.score[order].astype(np.float32),
        raw_score=found.raw_score[order].astype(np.float32),
        class_id=found.class_id[order],
    )
