"""The tensors of an ensemble on Triton: their names, and boxes as one tensor of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from .values import Detections, Float32

# What a caller sends: the bytes of one image an element, (n, 1) BYTES.
IMAGE: Final = "image"
# What a caller gets. `detections` has as many rows an image as the fullest image of the request needs; `count`
# says how many of them are boxes.
DETECTIONS: Final = "detections"  # (n, rows, 7) FP32: x1, y1, x2, y2, score, raw_score, class_id
COUNT: Final = "count"  # (n, 1) INT32
IMAGE_SIZE: Final = "image_size"  # (n, 2) INT32: width, height of the image as a person sees it
PREPROCESS_MS: Final = "preprocess_ms"  # (n, 1) FP32
POSTPROCESS_MS: Final = "postprocess_ms"  # (n, 1) FP32
OUTPUTS: Final = (DETECTIONS, COUNT, IMAGE_SIZE, PREPROCESS_MS, POSTPROCESS_MS)
COLUMNS: Final = 7

# How the sentence about a bad image begins in Triton's error, so that a caller tells it from Triton's own.
REFUSED: Final = "image refused: "

PARAMS_FILE: Final = "params.json"
# Names of parameters in config.pbtxt.
RESIZE: Final = "resize"
MAX_BYTES: Final = "max_image_bytes"
MAX_PIXELS: Final = "max_image_pixels"
BOXES: Final = "boxes"


def to_rows(detections: Detections) -> Float32:
    """Return (N, 7) float32; a class id is exact up to 2^24."""
    columns = (detections.score, detections.raw_score, detections.class_id.astype(np.float32))
    return np.concatenate((detections.xyxy, np.stack(columns, axis=1)), axis=1)


def from_rows(rows: Float32) -> Detections:
    """Return the detections of (N, 7) float32, bit for bit those that `to_rows` took."""
    return Detections(xyxy=rows[:, :4], score=rows[:, 4], raw_score=rows[:, 5], class_id=rows[:, 6].astype(np.int64))
