"""Whether an endpoint answers what its artifact answers here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tao2serve.errors import ParityError
from tao2serve.runtime import Detections
from tao2serve.runtime.candidates import overlap
from tao2serve.serving.client import Answer

__all__ = ["BoxParity", "check_boxes", "compare_boxes"]

MATCH_IOU = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxParity:
    """Boxes of both sides, how many found their twin (same class, IoU at least 0.9), and the worst score difference."""

    expected: int
    found: int
    matched: int
    max_score_difference: float

    @property
    def matched_ratio(self) -> float:
        """Matched boxes over the larger side; 1 when neither side has any."""
        total = max(self.expected, self.found)
        return self.matched / total if total else 1.0

    def __str__(self) -> str:
        if not self.expected and not self.found:
            return "no box on either side; a picture that shows some says more: --image FILE"
        return (
            f"{self.matched} of {self.expected} boxes matched, {self.found - self.matched} besides, "
            f"scores within {self.max_score_difference:.2g}"
        )


def check_boxes(expected: Detections, answer: Answer, *, subject: str) -> BoxParity:
    """Return how the boxes compare, or raise ParityError unless every fp32 box has its twin."""
    parity = compare_boxes(expected, answer)
    if parity.matched_ratio < 1.0:
        raise ParityError(
            subject,
            "answers other boxes than the artifact gives here",
            evidence=str(parity),
            hint="is another model loaded under this name, or another runtime in the preprocess package?",
        )
    return parity


def compare_boxes(expected: Detections, answer: Answer) -> BoxParity:
    """Pair boxes greedily, best overlap first, each at most once."""
    boxes = np.array([prediction.bbox for prediction in answer.predictions], dtype=np.float64).reshape(-1, 4)
    classes = np.array([prediction.class_id for prediction in answer.predictions], dtype=np.int64)
    scores = np.array([prediction.raw_score for prediction in answer.predictions])
    shared = overlap(expected.xyxy.astype(np.float64)[:, None], boxes[None])
    shared[expected.class_id[:, None] != classes[None, :]] = 0.0
    matched, worst = 0, 0.0
    while shared.size and shared.max() >= MATCH_IOU:
        ours, theirs = np.unravel_index(int(shared.argmax()), shared.shape)
        matched += 1
        worst = max(worst, abs(float(expected.raw_score[ours]) - float(scores[theirs])))
        shared[ours, :] = 0.0
        shared[:, theirs] = 0.0
    return BoxParity(expected=len(expected), found=len(boxes), matched=matched, max_score_difference=worst)
