"""KITTI label lines as TAO's own inference writes them: 16 columns, the last one TAO's confidence."""

from __future__ import annotations

from collections.abc import Iterable

from tao2serve.values import Prediction

__all__ = ["kitti_line", "kitti_text"]


def kitti_line(prediction: Prediction) -> str:
    """Return one line without its end.

    Columns are words, so white space in a class name, and what cannot be printed, becomes an underscore. The
    confidence is the raw score, as in TAO: for DBSCAN a sum that may exceed 1.
    """
    printable = "".join(one if one.isprintable() else " " for one in prediction.label)
    name = "_".join(printable.split()) or f"class_{prediction.class_id}"
    box = " ".join(f"{side:.3f}" for side in prediction.bbox)
    return f"{name} 0.00 0 0.00 {box} {' '.join(['0.00'] * 7)} {prediction.raw_score:.3f}"


def kitti_text(predictions: Iterable[Prediction]) -> str:
    """Return the content of a label file; that of a picture without objects is empty."""
    return "".join(kitti_line(prediction) + "\n" for prediction in predictions)
