"""The JSON object that Roboflow's inference server answers for one picture; `supervision` reads it."""

from __future__ import annotations

import uuid
from typing import Any

from tao2serve.formats.picture import PictureDetections

__all__ = ["roboflow_document"]


def roboflow_document(picture: PictureDetections) -> dict[str, Any]:
    """Return the object of one picture: x and y are a box's centre, all in pixels, confidence in [0, 1].

    The ids follow from the picture's name and the boxes, so that the same run gives the same document.
    """
    # A name that is not UTF-8 holds half characters, which no id can be made of.
    name = picture.name.encode("utf-8", "backslashreplace").decode()
    inference_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"tao2serve:{name}"))
    return {
        "inference_id": inference_id,
        "time": round(float(picture.document.get("timing_ms", {}).get("total", 0.0)) / 1e3, 6),
        "image": picture.size,
        "predictions": [
            {
                "x": round((x1 + x2) / 2, 4),
                "y": round((y1 + y2) / 2, 4),
                "width": round(x2 - x1, 3),
                "height": round(y2 - y1, 3),
                "confidence": prediction.score,
                "class": prediction.label,
                "class_id": prediction.class_id,
                "detection_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{inference_id}:{number}:{prediction.bbox}")),
            }
            for number, prediction in enumerate(picture.predictions)
            for x1, y1, x2, y2 in (prediction.bbox,)
        ],
    }
