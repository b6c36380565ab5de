"""Average precision as TAO's DetectNet_v2 evaluation computes it; the rules are in docs/tao.md.

Ratios in [0, 1]; TAO prints percent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError
from tao2serve.parity.labels import Labels
from tao2serve.runtime import Detections
from tao2serve.runtime.candidates import overlap
from tao2serve.runtime.values import Float32

__all__ = ["Accuracy", "AccuracySettings", "ClassAccuracy", "ClassSettings", "average_precision"]

Mode: TypeAlias = Literal["SAMPLE", "INTEGRATE"]
Size: TypeAlias = tuple[int, int]  # width, height

_RECALL_POINTS = np.linspace(0.0, 1.0, 11)
_SMALLEST_LABEL = 1.0  # network pixels
_MAX_OVERLAPS = 1 << 20  # held in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSettings:
    """What counts for one target class; sizes in network pixels, both ends included."""

    name: str
    minimum_overlap: float = 0.5  # IoU from which a detection is a true positive
    minimum_height: int = 0
    maximum_height: int = 1 << 30
    minimum_width: int = 0
    maximum_width: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracySettings:
    """`classes` are in channel order; an empty `class_mapping` takes the names in the labels as they are."""

    network_size: Size
    classes: tuple[ClassSettings, ...]
    class_mapping: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mode: Mode = "SAMPLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """One target class over all images; `objects` and `detections` are those that the size limits let in."""

    name: str
    objects: int
    detections: int
    true_positives: int
    average_precision: float  # ratio; 0 without objects
    highest_possible: float  # what a flawless detector gets: TAO's INTEGRATE leaves out one object's share


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """`mean` is over all target classes, those without objects included, as TAO takes it."""

    mode: Mode
    images: int
    classes: tuple[ClassAccuracy, ...]
    mean: float  # ratio
    unmapped: Mapping[str, int]  # labels of no target class, by the dataset's name; they count nowhere

    @property
    def notes(self) -> tuple[str, ...]:
        """Say in words what a reader of the numbers must know."""
        found = [f"no object of class {x.name} in the labels: it counts as 0" for x in self.classes if not x.objects]
        if self.unmapped:
            names = ", ".join(f"{name} ({count})" for name, count in self.unmapped.items())
            found.append(f"labels of no target class, not counted: {names}")
        scarce = [x for x in self.classes if x.objects and x.highest_possible < 0.99]
        found += [
            f"{x.objects} objects of class {x.name}: TAO's INTEGRATE gives a flawless detector {x.highest_possible:.3f}"
            for x in scarce
        ]
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Detections of one class over all images, in the order of the images."""

    confidence: Float32
    matched: NDArray[np.int64]  # number of the object a detection overlaps most and enough, -1 for none


def average_precision(
    detections: Sequence[Detections],
    labels: Sequence[Labels],
    *,
    image_sizes: Sequence[Size],
    settings: AccuracySettings,
) -> Accuracy:
    """Compare detections with labels, image by image; the three sequences are parallel.

    Boxes are in pixels of the images, whose sizes bring them to network pixels, where TAO compares. Where
    confidences are equal the earlier image comes first (TAO leaves that order open).
    Raises InputError if no label is of a target class, or a detection of a class that has no settings.
    """
    if not len(detections) == len(labels) == len(image_sizes):
        raise InputError(
            "accuracy",
            "needs detections, labels and a size for every image",
            evidence=f"{len(detections)} detections, {len(labels)} labels, {len(image_sizes)} sizes",
        )
    known = len(settings.classes)
    if any(len(one) and int(one.class_id.max()) >= known for one in detections):
        raise InputError("detections", "are of more classes than the spec has", evidence=f"the spec has {known}")
    target = {entry.name: index for index, entry in enumerate(settings.classes)}
    class_ids = [_class_ids(one.names, target, settings.class_mapping) for one in labels]
    unmapped = Counter(
        name
        for one, ids in zip(labels, class_ids, strict=True)
        for name, i in zip(one.names, ids, strict=True)
        if i < 0
    )
    if unmapped and not any((ids >= 0).any() for ids in class_ids):
        raise InputError(
            "labels",
            "have no object of a target class",
            evidence=f"in the labels: {', '.join(sorted(unmapped)[:20])}; target classes: {', '.join(target)}",
            hint="dataset_config.target_class_mapping maps the labels' names, in lower case, to target classes",
        )
    scales = [_scale(size, settings.network_size) for size in image_sizes]
    found = [_in_network(one.xyxy, scale) for one, scale in zip(detections, scales, strict=True)]
    real = [_in_network(one.xyxy, scale) for one, scale in zip(labels, scales, strict=True)]
    classes = []
    for index, entry in enumerate(settings.classes):
        mine = [one.class_id == index for one in detections]
        boxes = [box[mask] for box, mask in zip(found, mine, strict=True)]
        confidence = [one.raw_score[mask] for one, mask in zip(detections, mine, strict=True)]
        objects = [_large_enough(box[ids == index]) for box, ids in zip(real, class_ids, strict=True)]
        classes.append(_class_accuracy(boxes, confidence, objects, entry, settings.mode))
    return Accuracy(
        mode=settings.mode,
        images=len(labels),
        classes=tuple(classes),
        mean=float(np.mean([one.average_precision for one in classes])) if classes else 0.0,
        unmapped=MappingProxyType(dict(sorted(unmapped.items()))),
    )


def _class_ids(names: Sequence[str], target: Mapping[str, int], mapping: Mapping[str, str]) -> NDArray[np.int64]:
    mapped = (mapping.get(name, "") if mapping else name for name in names)
    return np.array([target.get(name, -1) for name in mapped], dtype=np.int64)


def _scale(image: Size, network: Size) -> Float32:
    if min(image) < 1 or min(network) < 1:
        raise InputError("accuracy", "needs sizes in pixels", evidence=f"image {image}, network {network}")
    width, height = network[0] / image[0], network[1] / image[1]
    return np.array([width, height, width, height], dtype=np.float32)


def _in_network(xyxy: Float32, scale: Float32) -> Float32:
    return xyxy.astype(np.float32).reshape(-1, 4) * scale


def _sides(boxes: Float32) -> tuple[Float32, Float32]:
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


def _large_enough(boxes: Float32) -> Float32:
    width, height = _sides(boxes)
    return boxes[(width >= _SMALLEST_LABEL) & (height >= _SMALLEST_LABEL)]


def _within(boxes: Float32, limits: ClassSettings) -> NDArray[np.bool_]:
    width, height = _sides(boxes)
    within: NDArray[np.bool_] = (
        (height >= limits.minimum_height)
        & (height <= limits.maximum_height)
        & (width >= limits.minimum_width)
        & (width <= limits.maximum_width)
    )
    return within


def _class_accuracy(
    boxes: Sequence[Float32],
    confidence: Sequence[Float32],
    objects: Sequence[Float32],
    entry: ClassSettings,
    mode: Mode,
) -> ClassAccuracy:
    """Compare one class; all sequences are by image, boxes in network pixels."""
    kept = [_within(one, entry) for one in boxes]
    real = [one[_within(one, entry)] for one in objects]
    first = np.cumsum([0, *map(len, real)])  # objects are numbered through all images
    threshold = float(np.float32(entry.minimum_overlap))  # TAO reads the spec's number as float32
    matched = [
        _match(one[keep], truth, threshold, int(start))
        for one, keep, truth, start in zip(boxes, kept, real, first[:-1], strict=True)
    ]
    found = _Found(
        confidence=np.concatenate(
            [np.zeros(0, np.float32), *(c[keep] for c, keep in zip(confidence, kept, strict=True))]
        ),
        matched=np.concatenate([np.zeros(0, np.int64), *matched]),
    )
    hits, count = _true_positives(found), int(first[-1])
    return ClassAccuracy(
        name=entry.name,
        objects=count,
        detections=len(hits),
        true_positives=int(hits.sum()),
        average_precision=_area(hits, count, mode),
        highest_possible=0.0 if not count else 1.0 if mode == "SAMPLE" else (count - 1) / count,
    )


def _match(boxes: Float32, objects: Float32, threshold: float, first: int) -> NDArray[np.int64]:
    """Return for each box the number of the object it overlaps most, or -1 where that is not enough.

    TAO rounds all corners (half to even) and counts the pixels of both borders. The best object counts even
    if another detection has it already.
    """
    matched = np.full(len(boxes), -1, dtype=np.int64)
    if not len(objects):
        return matched
    found, real = np.rint(boxes).astype(np.float64), np.rint(objects).astype(np.float64)
    step = max(_MAX_OVERLAPS // len(objects), 1)
    for start in range(0, len(boxes), step):
        shared = overlap(found[start : start + step, None], real[None], pixel=1.0)
        best = shared.argmax(axis=1)
        enough = shared.max(axis=1) >= threshold
        matched[start : start + step] = np.where(enough, best + first, -1)
    return matched


def _true_positives(found: _Found) -> NDArray[np.bool_]:
    """Sort by confidence, highest first; of the detections of one object only the first is a true positive."""
    matched = found.matched[np.argsort(-found.confidence.astype(np.float32), kind="stable")]
    _, earliest = np.unique(matched, return_index=True)
    hits = np.zeros(len(matched), dtype=np.bool_)
    hits[earliest] = True
    return hits & (matched >= 0)


def _area(hits: NDArray[np.bool_], objects: int, mode: Mode) -> float:
    """Average precision of detections sorted by confidence, of which `hits` are right."""
    if not objects or not len(hits):
        return 0.0
    right = np.cumsum(hits)
    precision: NDArray[np.floating[Any]] = right / np.arange(1, len(hits) + 1)
    recall = right / objects
    if mode == "SAMPLE":
        best = [float(precision[recall >= point].max(initial=0.0)) for point in _RECALL_POINTS]
        return sum(best) / len(best)
    # TAO's sum begins at the first detection's recall and lets the precision at the last one out: a
    # flawless detector of n objects gets (n - 1) / n.
    levels, begin = np.unique(recall, return_index=True)
    height = np.maximum.reduceat(precision, begin)[:-1]
    envelope = np.maximum.accumulate(height[::-1])[::-1]
    return float(np.sum(envelope * np.diff(levels)))
