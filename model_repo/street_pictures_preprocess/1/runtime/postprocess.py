"""Raw grids to detections in pixels of the original image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .candidates import BoxEncoding, Index, find_candidates
from .clustering import Boxes, cluster
from .values import Detections, DetectorParams, Float32

__all__ = ["postprocess", "postprocess_batch"]


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
    _require_fit(cov.shape, bbox.shape, params)
    # Grids may hold anything, and what is no number is left out by comparison.
    with np.errstate(all="ignore"):
        found = cluster(find_candidates(cov, bbox, params, boxes=boxes), params)
        return _detections(found, np.lexsort((found.first, -found.raw_score)), params, image_size)


def postprocess_batch(
    cov: Float32,
    bbox: Float32,
    params: DetectorParams,
    *,
    image_sizes: Sequence[tuple[int, int]],
    boxes: BoxEncoding = "offsets",
) -> tuple[Detections, ...]:
    """Decode and cluster the grids of several images in one pass: cov (N, C, h, w), bbox (N, 4C, h, w).

    Gives for each image what `postprocess` gives. Raises ValueError if the grids do not fit the parameters, or if
    there is not one size an image.
    """
    if cov.ndim != 4 or bbox.ndim != 4 or not len(cov) == len(bbox) == len(image_sizes):
        raise ValueError(f"cov is {cov.shape} and bbox {bbox.shape}, with {len(image_sizes)} image sizes")
    _require_fit(cov.shape[1:], bbox.shape[1:], params)
    with np.errstate(all="ignore"):
        found = cluster(find_candidates(cov, bbox, params, boxes=boxes), params)
        image = found.group // len(params.classes)
        order = np.lexsort((found.first, -found.raw_score, image))
        ends = np.searchsorted(image.take(order), np.arange(len(image_sizes) + 1)).tolist()
        return tuple(
            _detections(found, order[ends[index] : ends[index + 1]], params, size)
            for index, size in enumerate(image_sizes)
        )


def _require_fit(cov: tuple[int, ...], bbox: tuple[int, ...], params: DetectorParams) -> None:
    classes = len(params.classes)
    if len(cov) != 3 or cov[0] != classes or 0 in cov:
        raise ValueError(f"cov is {cov}, and {classes} classes need ({classes}, h, w)")
    if bbox != (4 * classes, *cov[1:]):
        raise ValueError(f"bbox is {bbox}, and cov {cov} needs {(4 * classes, *cov[1:])}")


def _detections(found: Boxes, order: Index, params: DetectorParams, image_size: tuple[int, int]) -> Detections:
    """Return the boxes in `order`, clipped to the network's input and scaled to the image."""
    limit = np.array((params.width, params.height) * 2, dtype=np.float64)
    xyxy = np.minimum(found.sides.T.take(order, axis=0), limit)
    np.maximum(xyxy, 0.0, out=xyxy)
    xyxy *= np.array(tuple(image_size) * 2) / limit
    return Detections(
        xyxy=xyxy.astype(np.float32),
        score=found.score.take(order).astype(np.float32),
        raw_score=found.raw_score.take(order).astype(np.float32),
        class_id=found.class_id.take(order),
    )
