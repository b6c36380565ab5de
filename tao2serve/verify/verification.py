"""The result of a verification, and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from tao2serve.parity.accuracy import Accuracy
from tao2serve.parity.boxes import BoxParity, over_all
from tao2serve.parity.tensors import TensorDifference
from tao2serve.runtime import Detections
from tao2serve.verify.subjects import Subject

__all__ = ["AccuracyChange", "ImageResult", "Limits", "Verification"]

SHOWN_IMAGES: Final = 20  # in the JSON document, the worst first
LEAST_COSINE, LEAST_COSINE_INT8 = 0.999, 0.7
NOTICED_DROP: Final = 0.01  # one point of mAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What still counts as the same, decided by the coarser precision of the two sides."""

    precision: str  # fp32 | fp16 | int8, "" where neither side says
    tensor_tolerance: float | None  # largest absolute difference; None: tensors are shown, boxes decide
    matched_ratio: float  # boxes of one side with a twin on the other

    @property
    def least_cosine(self) -> float:
        """What fp16 and int8 tensors are held to where no side finds a box; for int8 it shows only what is broken."""
        return LEAST_COSINE_INT8 if self.precision == "int8" else LEAST_COSINE


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What both sides found in one image."""

    name: str
    reference: Detections
    candidate: Detections
    boxes: BoxParity


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyChange:
    """Average precision of both sides against labels, as TAO computes it."""

    reference: Accuracy
    candidate: Accuracy

    @property
    def drop(self) -> float:
        """How much mAP the candidate loses, as a ratio; negative where it gains."""
        return self.reference.mean - self.candidate.mean

    @property
    def notes(self) -> tuple[str, ...]:
        """Say plainly when accuracy was lost, and what else a reader of the figures must know."""
        lost = f"mAP is {100 * self.drop:.2f} points below the reference's" if self.drop > NOTICED_DROP else ""
        return (*((lost,) if lost else ()), *self.candidate.notes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "mode": self.reference.mode,
            "images": self.reference.images,
            "mean_average_precision": {"reference": self.reference.mean, "candidate": self.candidate.mean},
            "drop": self.drop,
            "classes": [
                {
                    "name": ours.name,
                    "objects": ours.objects,
                    "reference": ours.average_precision,
                    "candidate": theirs.average_precision,
                }
                for ours, theirs in zip(self.reference.classes, self.candidate.classes, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a candidate compares with its reference over some images."""

    reference: Subject
    candidate: Subject
    images: tuple[ImageResult, ...]
    image_source: str
    decoded_with: str  # where the settings that turn grids into boxes come from
    limits: Limits
    tensors: tuple[TensorDifference, ...]  # coverage and bbox; none where a side is an endpoint
    accuracy: AccuracyChange | None = None  # None without labels
    first_divergence: str = ""
    findings: tuple[str, ...] = ()  # in words, what a reader of the figures should know

    @property
    def boxes(self) -> BoxParity:
        return over_all(image.boxes for image in self.images)

    @property
    def worst_images(self) -> tuple[ImageResult, ...]:
        """The images with boxes that found no twin, most of them first."""
        off = [image for image in self.images if image.boxes.unmatched]
        return tuple(sorted(off, key=lambda image: -image.boxes.unmatched))

    @property
    def failures(self) -> tuple[str, ...]:
        """What is outside its limit, in words; none means that the candidate passed."""
        # Whatever the precision: where values are no numbers, boxes may be missing on both sides, and none is missed.
        found = [f"{item.name} holds what is no number" for item in self.tensors if not math.isfinite(item.max_abs)]
        allowed = self.limits.tensor_tolerance
        if allowed is not None:
            found += [
                f"{tensor.name} is off by {tensor.max_abs:.3g}, {allowed:g} is allowed"
                for tensor in self.tensors
                if math.isfinite(tensor.max_abs) and tensor.max_abs > allowed
            ]
        if allowed is None and not (self.boxes.expected or self.boxes.found):
            least = self.limits.least_cosine
            found += [
                f"{tensor.name} points elsewhere: cosine {tensor.cosine:.4f}, {least:g} is the least without boxes"
                for tensor in self.tensors
                if not tensor.cosine >= least
            ]
        if self.boxes.matched_ratio < self.limits.matched_ratio:
            found.append(
                f"{self.boxes.matched_ratio:.1%} of the boxes match, {self.limits.matched_ratio:.0%} must: {self.boxes}"
            )
        return tuple(found)

    @property
    def judged(self) -> bool:
        """Whether there was anything to judge by: boxes, or for fp32 and fp16 the tensors."""
        by_tensors = bool(self.tensors) and self.limits.precision != "int8"
        return by_tensors or bool(self.boxes.expected or self.boxes.found)

    @property
    def passed(self) -> bool:
        """Nothing is outside its limit; that says something only if it was `judged`."""
        return not self.failures

    def diverging_at(self, stage: str) -> Verification:
        return replace(self, first_divergence=stage)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve verify`."""
        return {
            "outcome": "ok" if self.passed else "failed",
            "passed": self.passed,
            "judged": self.judged,
            "reference": _subject(self.reference),
            "candidate": _subject(self.candidate),
            "images": len(self.images),
            "image_source": self.image_source,
            "decoded_with": self.decoded_with,
            "precision": self.limits.precision,
            "tensors": [
                {
                    "name": tensor.name,
                    "max_abs": _finite(tensor.max_abs),
                    "mean_abs": _finite(tensor.mean_abs),
                    "cosine": tensor.cosine,
                    "allowed": self.limits.tensor_tolerance,
                }
                for tensor in self.tensors
            ],
            "boxes": {
                "expected": self.boxes.expected,
                "found": self.boxes.found,
                "matched": self.boxes.matched,
                "matched_ratio": self.boxes.matched_ratio,
                "required_ratio": self.limits.matched_ratio,
                "max_score_difference": self.boxes.max_score_difference,
            },
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "worst_images": [
                {
                    "image": image.name,
                    "expected": image.boxes.expected,
                    "found": image.boxes.found,
                    "matched": image.boxes.matched,
                }
                for image in self.worst_images[:SHOWN_IMAGES]
            ],
            "first_divergence": self.first_divergence,
            "failures": list(self.failures),
            "findings": list(self.findings),
        }


def _subject(subject: Subject) -> dict[str, Any]:
    return {"name": subject.name, "kind": subject.kind, "precision": subject.precision or None}


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
