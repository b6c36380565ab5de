"""COCO: the entries of a dataset file, and of the list of results that pycocotools' `loadRes` takes."""

from __future__ import annotations

from typing import Any

from tao2serve.formats.picture import PictureDetections
from tao2serve.values import Prediction

__all__ = ["annotation_entry", "category_entry", "category_id", "image_entry", "result_entry"]


def category_id(class_id: int) -> int:
    """Return the category of a class: COCO counts from 1, for tools take category 0 for the background."""
    return class_id + 1


def category_entry(class_id: int, label: str) -> dict[str, Any]:
    return {"id": category_id(class_id), "name": label, "supercategory": "object"}


def image_entry(picture: PictureDetections, *, image_id: int) -> dict[str, Any]:
    return {"id": image_id, "file_name": picture.name, **picture.size}


def result_entry(prediction: Prediction, *, image_id: int) -> dict[str, Any]:
    """Return one result: bbox is x, y, width, height in pixels, score in [0, 1]."""
    x1, y1, x2, y2 = prediction.bbox
    return {
        "image_id": image_id,
        "category_id": category_id(prediction.class_id),
        "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
        "score": prediction.score,
    }


def annotation_entry(prediction: Prediction, *, image_id: int, annotation_id: int) -> dict[str, Any]:
    """Return one object of a dataset file.

    Ids count from 1: COCOeval takes annotation 0 for "no match". There is no `segmentation`: an empty one makes
    some readers drop the box.
    """
    entry = result_entry(prediction, image_id=image_id)
    _, _, width, height = entry["bbox"]
    return {"id": annotation_id, **entry, "area": round(width * height, 3), "iscrowd": 0}
