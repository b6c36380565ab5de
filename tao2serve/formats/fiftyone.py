"""FiftyOne's FiftyOneImageDetectionDataset: the detections of one picture in its labels.json."""

from __future__ import annotations

from typing import Any

from tao2serve.formats.picture import PictureDetections

__all__ = ["fiftyone_detections"]


def fiftyone_detections(picture: PictureDetections) -> list[dict[str, Any]]:
    """Return the picture's objects: bounding_box is x, y, width, height as shares of the picture, in [0, 1]."""
    detections = []
    for prediction in picture.predictions:
        x1, y1, x2, y2 = prediction.bbox
        left, right = (_share(side, picture.width) for side in (x1, x2))
        top, bottom = (_share(side, picture.height) for side in (y1, y2))
        box = [left, top, max(right - left, 0.0), max(bottom - top, 0.0)]
        detections.append(
            {
                "label": prediction.label,
                "bounding_box": [round(number, 8) for number in box],
                "confidence": prediction.score,
            }
        )
    return detections


def _share(pixels: float, length: int) -> float:
    return min(max(pixels / length, 0.0), 1.0)
