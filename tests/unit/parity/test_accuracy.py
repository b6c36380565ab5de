"""Average precision equals that of TAO's own evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tao2serve.errors import InputError
from tao2serve.parity.accuracy import Accuracy, AccuracySettings, ClassSettings, average_precision
from tao2serve.parity.labels import Labels
from tao2serve.runtime import Detections

DATA = json.loads(Path(__file__).with_name("average_precision.json").read_text())
NETWORK = (960, 544)


def _labels(rows: Sequence[Sequence[Any]]) -> Labels:
    boxes = np.array([row[1:] for row in rows], dtype=np.float32).reshape(-1, 4)
    return Labels(path=Path("label.txt"), names=tuple(row[0] for row in rows), xyxy=boxes)


def _detections(rows: Sequence[Sequence[Any]]) -> Detections:
    """Take (class id, confidence, box) in any order."""
    ordered = sorted(rows, key=lambda row: -row[1])
    confidence = np.array([row[1] for row in ordered], dtype=np.float32)
    return Detections(
        xyxy=np.array([row[2:] for row in ordered], dtype=np.float32).reshape(-1, 4),
        score=np.clip(confidence, 0, 1),
        raw_score=confidence,
        class_id=np.array([row[0] for row in ordered], dtype=np.int64),
    )


def _measure(
    images: Sequence[tuple[Sequence[Any], Sequence[Any]]],
    *,
    mode: str = "SAMPLE",
    classes: tuple[ClassSettings, ...] = (ClassSettings(name="car"),),
    mapping: dict[str, str] | None = None,
    size: tuple[int, int] = NETWORK,
) -> Accuracy:
    settings = AccuracySettings(
        network_size=NETWORK,
        classes=classes,
        class_mapping=mapping or {},
        mode=mode,  # type: ignore[arg-type]
    )
    return average_precision(
        [_detections(found) for found, _ in images],
        [_labels(real) for _, real in images],
        image_sizes=[size] * len(images),
        settings=settings,
    )


@pytest.mark.parametrize("mode", ["SAMPLE", "INTEGRATE"])
@pytest.mark.parametrize("number", range(len(DATA["scenes"])))
def test_equals_taos_own_evaluation(number: int, mode: str) -> None:
    """AP, mean and counts of random scenes are those TAO's evaluation code gave for them."""
    scene = DATA["scenes"][number]
    result = _measure(
        [(image["detections"], image["labels"]) for image in scene["images"]],
        mode=mode,
        classes=tuple(ClassSettings(**entry) for entry in scene["classes"]),
    )
    expected = scene["expected"][mode]
    assert result.mean == pytest.approx(expected["mean"], abs=1e-12)
    assert {one.name: one.average_precision for one in result.classes} == pytest.approx(expected["classes"], abs=1e-12)
    counts = [[one.objects, one.detections, one.true_positives] for one in result.classes]
    assert counts == scene["objects_detections_true_positives"]


BOX = (100.0, 100.0, 149.0, 149.0)
FAR = (500.0, 300.0, 549.0, 349.0)
OTHER = (700.0, 100.0, 749.0, 149.0)


def _ap(found: Sequence[Any], real: Sequence[Any], *, mode: str = "SAMPLE", overlap: float = 0.5) -> float:
    classes = (ClassSettings(name="car", minimum_overlap=overlap),)
    return _measure([(found, real)], mode=mode, classes=classes).mean


def test_a_flawless_detector() -> None:
    """SAMPLE gives 1; INTEGRATE leaves out one object's share, and says what the highest value is."""
    found = [(0, 3.0, *BOX), (0, 2.0, *FAR), (0, 1.0, *OTHER)]
    real = [("car", *BOX), ("car", *FAR), ("car", *OTHER)]
    assert _ap(found, real) == 1.0
    integrated = _measure([(found, real)], mode="INTEGRATE")
    assert integrated.mean == pytest.approx(2 / 3)
    assert integrated.classes[0].highest_possible == pytest.approx(2 / 3)
    assert "flawless detector 0.667" in integrated.notes[0]
    assert _measure([(found, real)]).notes == ()


def test_one_object_in_integrate_mode_is_always_nothing() -> None:
    """TAO's INTEGRATE gives 0 for a class with one object, found or not."""
    assert _ap([(0, 1.0, *BOX)], [("car", *BOX)], mode="INTEGRATE") == 0.0
    assert _ap([(0, 1.0, *BOX)], [("car", *BOX)]) == 1.0


def test_duplicates_are_false_positives() -> None:
    """Of two detections of one object the surer one is right, whatever the other's overlap."""
    close = (100.0, 100.0, 149.0, 140.0)
    found = [(0, 2.0, *close), (0, 1.0, *BOX)]
    result = _measure([(found, [("car", *BOX)])]).classes[0]
    assert (result.detections, result.true_positives) == (2, 1)
    assert result.average_precision == 1.0


def test_a_detection_claims_only_its_best_object() -> None:
    """A detection whose best object is taken is false, though it overlaps a free one enough."""
    first, second = (100.0, 100.0, 149.0, 149.0), (102.0, 100.0, 151.0, 149.0)
    found = [(0, 2.0, *first), (0, 1.0, *first)]
    result = _measure([(found, [("car", *first), ("car", *second)])]).classes[0]
    assert result.true_positives == 1


def test_the_threshold_is_included_and_float32() -> None:
    """IoU equal to the threshold matches, where the threshold as float32 is not above it, as in TAO."""
    # 10 x 10 whole pixels with both borders, of which 6 or 7 columns are shared: IoU 0.6 and 0.7
    real = [("car", 0.0, 0.0, 9.0, 9.0)]
    assert _ap([(0, 1.0, 0.0, 0.0, 6.0, 9.0)], real, overlap=0.7) == 1.0  # float32(0.7) is a little below
    assert _ap([(0, 1.0, 0.0, 0.0, 5.0, 9.0)], real, overlap=0.6) == 0.0  # float32(0.6) is a little above
    assert _ap([(0, 1.0, 0.0, 0.0, 4.0, 9.0)], real, overlap=0.5) == 1.0


def test_corners_are_rounded_half_to_even() -> None:
    """Corners are compared as whole pixels: 0.5 becomes 0 and 1.5 becomes 2."""
    real = [("car", 0.5, 0.5, 8.5, 8.5)]
    assert _ap([(0, 1.0, 0.0, 0.0, 8.0, 8.0)], real, overlap=1.0) == 1.0
    assert _ap([(0, 1.0, 1.0, 1.0, 9.0, 9.0)], real, overlap=1.0) == 0.0


def test_size_limits_leave_out_both_sides() -> None:
    """Objects and detections outside the limits count nowhere; the limits apply before rounding."""
    limits = (ClassSettings(name="car", minimum_height=20, maximum_width=60),)
    flat, wide = (0.0, 0.0, 40.0, 19.9), (0.0, 50.0, 60.5, 100.0)
    found = [(0, 9.0, *flat), (0, 8.0, *wide), (0, 1.0, *BOX)]
    real = [("car", *flat), ("car", *wide), ("car", *BOX)]
    result = _measure([(found, real)], classes=limits).classes[0]
    assert (result.objects, result.detections, result.average_precision) == (1, 1, 1.0)


def test_labels_below_a_pixel_are_left_out() -> None:
    """An object that shrinks below one network pixel is none, as in TAO's data loader."""
    real = [("car", *BOX), ("car", 0.0, 0.0, 1.5, 50.0)]
    assert _measure([([(0, 1.0, *BOX)], real)], size=(1920, 1088)).classes[0].objects == 1
    assert _measure([([(0, 1.0, *BOX)], real)]).classes[0].objects == 2


def test_boxes_are_compared_in_network_pixels() -> None:
    """The same scene in a picture of another size gives the same numbers, but for rounding's sake not its pixels."""
    double = tuple(2 * x for x in BOX)
    limits = (ClassSettings(name="car", minimum_height=40, maximum_height=60),)
    small = _measure([([(0, 1.0, *BOX)], [("car", *BOX)])], classes=limits)
    large = _measure([([(0, 1.0, *double)], [("car", *double)])], classes=limits, size=(1920, 1088))
    assert small == large
    assert large.classes[0].objects == 1


def test_mapping_as_tao_applies_it() -> None:
    """Labels reach target classes through the mapping, key by key; the rest counts nowhere and is said."""
    real = [("van", *BOX), ("truck", *FAR), ("dontcare", *OTHER)]
    found = [(0, 3.0, *BOX), (0, 2.0, *FAR), (0, 1.0, *OTHER)]
    result = _measure([(found, real)], mapping={"van": "car", "Truck": "car", "tram": "train"})
    assert (result.classes[0].objects, result.classes[0].true_positives) == (1, 1)
    assert dict(result.unmapped) == {"dontcare": 1, "truck": 1}
    assert "labels of no target class, not counted: dontcare (1), truck (1)" in result.notes


def test_empty_classes_pull_the_mean_down() -> None:
    """A class without objects has AP 0 and is part of the mean, detections or none, and is named."""
    classes = (ClassSettings(name="car"), ClassSettings(name="person"), ClassSettings(name="sign"))
    for found in ([(0, 1.0, *BOX)], [(0, 1.0, *BOX), (1, 1.0, *FAR)]):
        for mode in ("SAMPLE", "INTEGRATE"):
            result = _measure([(found, [("car", *BOX), ("car", *FAR)])], classes=classes, mode=mode)
            assert [one.average_precision for one in result.classes][1:] == [0.0, 0.0]
            assert result.mean == pytest.approx(result.classes[0].average_precision / 3)
            assert any("class person" in note for note in result.notes)


def test_pictures_without_anything() -> None:
    """No image, no detection and no label are results, not failures."""
    assert _measure([]).mean == 0.0
    result = _measure([([], []), ([], [])])
    assert (result.images, result.mean, result.classes[0].objects) == (2, 0.0, 0)


def test_what_cannot_be_compared() -> None:
    """Labels without any target class, classes without settings and uneven sequences are InputErrors."""
    with pytest.raises(InputError, match="no object of a target class") as caught:
        _measure([([], [("Pedestrian".lower(), *BOX)])])
    assert "pedestrian" in caught.value.evidence
    with pytest.raises(InputError, match="more classes than the spec"):
        _measure([([(1, 1.0, *BOX)], [("car", *BOX)])])
    settings = AccuracySettings(network_size=NETWORK, classes=(ClassSettings(name="car"),))
    with pytest.raises(InputError, match="for every image"):
        average_precision([], [_labels([])], image_sizes=[NETWORK], settings=settings)
    with pytest.raises(InputError, match="sizes in pixels"):
        average_precision([_detections([])], [_labels([])], image_sizes=[(0, 5)], settings=settings)


def test_many_boxes_stay_within_memory() -> None:
    """A file full of objects is compared piece by piece, with the result of comparing at once."""
    place = np.arange(3000, dtype=np.float64)
    boxes = np.stack((place % 90 * 10, place // 90 * 10, place % 90 * 10 + 8, place // 90 * 10 + 8), axis=1)
    real = [("car", *box) for box in boxes]
    found = [(0, 1.0 + i, *box) for i, box in enumerate(boxes)]
    assert _measure([(found, real)]).classes[0].true_positives == 3000
