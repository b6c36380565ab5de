"""Whether an endpoint answers what its artifact answers here."""

from __future__ import annotations

from tao2serve.errors import ParityError
from tao2serve.parity.boxes import BoxParity, compare_boxes
from tao2serve.runtime import Detections
from tao2serve.serving.client import Answer

__all__ = ["check_boxes"]


def check_boxes(expected: Detections, answer: Answer, *, subject: str) -> BoxParity:
    """Return how the boxes compare, or raise ParityError unless every box has its twin."""
    parity = compare_boxes(expected, answer.detections)
    if parity.matched_ratio < 1.0:
        raise ParityError(
            subject,
            "answers other boxes than the artifact gives here",
            evidence=str(parity),
            hint="is another model loaded under this name, or another runtime in the preprocess package? With "
            "--resize fast: is OpenCV there on one side only?",
        )
    return parity
