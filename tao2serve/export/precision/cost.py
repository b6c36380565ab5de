"""What a precision costs: tensors and boxes of two artifacts on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import InputError
from tao2serve.export.local import LocalDetector
from tao2serve.export.precision.fp16 import overflowing
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.observe import float_tensors, largest_values, pictures
from tao2serve.parity.boxes import BoxParity, compare_boxes, over_all
from tao2serve.parity.tensors import TensorDifference, compare_tensors
from tao2serve.runtime import Detections, DetectorParams, postprocess
from tao2serve.values import ModelArtifact

__all__ = ["PrecisionCost", "measure_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionCost:
    """How far `candidate` is from `reference`, both on the same images.

    Of each tensor: the largest difference, the mean over all images, the smallest cosine. The boxes of both sides
    are in the order of `images`, in pixels of the original, so that accuracy can be judged from the same run.
    """

    reference: Path
    candidate: Path
    precision: str
    images: tuple[Path, ...]
    coverage: TensorDifference
    bbox: TensorDifference
    boxes: BoxParity
    reference_boxes: tuple[Detections, ...]
    candidate_boxes: tuple[Detections, ...]
    findings: tuple[str, ...] = ()  # what the figures alone would hide

    def __str__(self) -> str:
        return (
            f"{self.precision}: coverage within {self.coverage.max_abs:.2g} (mean {self.coverage.mean_abs:.2g}), "
            f"bbox within {self.bbox.max_abs:.2g} (mean {self.bbox.mean_abs:.2g}), {self.boxes}"
        )


def measure_cost(
    reference: ModelArtifact,
    candidate: ModelArtifact,
    params: DetectorParams,
    images: Sequence[Path],
    *,
    on_news: Callable[[str], None] = lambda _: None,
) -> PrecisionCost:
    """Run both artifacts on the images, as they are served, and compare.

    Raises InputError for images that are none, and for artifacts that do not fit each other or `params`.
    """
    if not images:
        raise InputError(str(candidate.path), "cannot be compared without images")
    if reference.signature.input.shape != candidate.signature.input.shape:
        raise InputError(
            str(candidate.path),
            f"takes another input than {reference.path}",
            evidence=f"{reference.signature} against {candidate.signature}",
        )
    sides = (LocalDetector(reference, params), LocalDetector(candidate, params))
    coverages: list[TensorDifference] = []
    bboxes: list[TensorDifference] = []
    found: tuple[list[Detections], list[Detections]] = ([], [])
    for number, picture in enumerate(pictures(images, params), start=1):
        (coverage, bbox), (other_coverage, other_bbox) = (side.infer(picture.tensor) for side in sides)
        coverages.append(compare_tensors(coverage, other_coverage, name=reference.signature.coverage.name))
        bboxes.append(compare_tensors(bbox, other_bbox, name=reference.signature.bbox.name))
        found[0].append(postprocess(coverage[0], bbox[0], params, image_size=picture.size))
        found[1].append(postprocess(other_coverage[0], other_bbox[0], params, image_size=picture.size))
        on_news(f"comparing: {number} of {len(images)} images")
    return PrecisionCost(
        reference=reference.path,
        candidate=candidate.path,
        precision=candidate.precision,
        images=tuple(images),
        coverage=_over_images(coverages),
        bbox=_over_images(bboxes),
        boxes=over_all(compare_boxes(ours, theirs) for ours, theirs in zip(*found, strict=True)),
        reference_boxes=tuple(found[0]),
        candidate_boxes=tuple(found[1]),
        findings=_overflows(reference, params, images) if candidate.precision == "fp16" else (),
    )


def _over_images(differences: Sequence[TensorDifference]) -> TensorDifference:
    return TensorDifference(
        name=differences[0].name,
        shape=(len(differences), *differences[0].shape[1:]),
        max_abs=max(item.max_abs for item in differences),
        mean_abs=sum(item.mean_abs for item in differences) / len(differences),
        cosine=min(item.cosine for item in differences),
    )


def _overflows(reference: ModelArtifact, params: DetectorParams, images: Sequence[Path]) -> tuple[str, ...]:
    """Say which tensors of the float32 network float16 cannot hold: a CPU would not show it in the results."""
    model, subject = load_model(reference), str(reference.path)
    batches = (picture.tensor for picture in pictures(images, params))
    return overflowing(largest_values(model, float_tensors(model, subject=subject), batches, subject=subject))
