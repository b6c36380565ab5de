"""Whether two sets of detections are the same boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tao2serve.runtime import Detections
from tao2serve.runtime.candidates import overlap

__all__ = ["MATCH_IOU", "BoxParity", "compare_boxes", "match_boxes", "over_all"]

MATCH_IOU = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxParity:
    """Boxes of both sides, how many found their twin (same class, IoU at least 0.9), and the worst score difference."""

    expected: int
    found: int
    matched: int
    max_score_difference: float  # of raw scores, over matched boxes

    @property
    def matched_ratio(self) -> float:
        """Matched boxes over the larger side; 1 when neither side has any."""
        total = max(self.expected, self.found)
        return self.matched / total if total else 1.0

    @property
    def unmatched(self) -> int:
        """Boxes of either side that found no twin."""
        return self.expected + self.found - 2 * self.matched

    def __str__(self) -> str:
        if not self.expected and not self.found:
            return "no box on either side; a picture that shows some says more"
        return (
            f"{self.matched} of {self.expected} boxes matched, {self.found - self.matched} besides, "
            f"scores within {self.max_score_difference:.2g}"
        )


def match_boxes(reference: Detections, candidate: Detections) -> tuple[tuple[int, int], ...]:
    """Pair boxes of one class greedily, best overlap first, each at most once; returns pairs of indices."""
    shared = overlap(reference.xyxy.astype(np.float64)[:, None], candidate.xyxy.astype(np.float64)[None])
    shared[reference.class_id[:, None] != candidate.class_id[None, :]] = 0.0
    ours, theirs = np.nonzero(shared >= MATCH_IOU)
    order = np.argsort(-shared[ours, theirs], kind="stable")
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in zip(ours[order].tolist(), theirs[order].tolist(), strict=True):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return tuple(sorted(pairs.items()))


def compare_boxes(reference: Detections, candidate: Detections) -> BoxParity:
    """Count the boxes of both sides that have a twin on the other."""
    pairs = match_boxes(reference, candidate)
    differences = [abs(float(reference.raw_score[i]) - float(candidate.raw_score[j])) for i, j in pairs]
    return BoxParity(
        expected=len(reference),
        found=len(candidate),
        matched=len(pairs),
        max_score_difference=max(differences, default=0.0),
    )


def over_all(parities: Iterable[BoxParity]) -> BoxParity:
    """Sum up the comparisons of several images."""
    items = tuple(parities)
    return BoxParity(
        expected=sum(item.expected for item in items),
        found=sum(item.found for item in items),
        matched=sum(item.matched for item in items),
        max_score_difference=max((item.max_score_difference for item in items), default=0.0),
    )
