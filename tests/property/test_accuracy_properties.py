"""What holds of average precision for any detections and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.parity.accuracy import AccuracySettings, ClassAccuracy, ClassSettings, average_precision
from tao2serve.parity.labels import Labels
from tao2serve.runtime import Detections

Mode: TypeAlias = Literal["SAMPLE", "INTEGRATE"]
NETWORK = (960, 544)
MODES: st.SearchStrategy[Mode] = st.sampled_from(("SAMPLE", "INTEGRATE"))
Image: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, bool], ...]]
# Objects stand in cells of a raster, far apart; a detection is one object's cell, hit or missed.
IMAGES: st.SearchStrategy[list[Image]] = st.lists(
    st.tuples(
        st.lists(st.integers(0, 39), unique=True, max_size=8).map(tuple),
        st.lists(st.tuples(st.integers(0, 39), st.booleans()), max_size=10).map(tuple),
    ),
    min_size=1,
    max_size=5,
)


def _box(cell: int, *, shift: float = 0.0) -> tuple[float, float, float, float]:
    left, top = cell % 8 * 110.0 + shift, cell // 8 * 100.0
    return left, top, left + 39, top + 39


def _measure(images: Sequence[Image], confidence: Sequence[Sequence[float]], *, mode: Mode) -> ClassAccuracy:
    detections, labels = [], []
    for (objects, found), sure in zip(images, confidence, strict=True):
        boxes = np.array([_box(c, shift=0.0 if hit else 50.0) for c, hit in found], np.float32).reshape(-1, 4)
        order = np.argsort(-np.array(sure, dtype=np.float32), kind="stable")
        raw = np.array(sure, dtype=np.float32)[order]
        detections.append(
            Detections(
                xyxy=boxes[order], score=np.clip(raw, 0, 1), raw_score=raw, class_id=np.zeros(len(raw), dtype=np.int64)
            )
        )
        real = np.array([_box(c) for c in objects], np.float32).reshape(-1, 4)
        labels.append(Labels(path=Path("label.txt"), names=("car",) * len(objects), xyxy=real))
    settings = AccuracySettings(network_size=NETWORK, classes=(ClassSettings(name="car"),), mode=mode)
    return average_precision(detections, labels, image_sizes=[NETWORK] * len(images), settings=settings).classes[0]


def _distinct(images: Sequence[Image], shuffled: Sequence[int]) -> list[list[float]]:
    """Give every detection a confidence of its own."""
    numbers = iter(shuffled)
    return [[next(numbers) / 8 for _ in found] for _, found in images]


def _count(images: Sequence[Image]) -> int:
    return sum(len(found) for _, found in images)


@given(images=IMAGES, mode=MODES)
def test_flawless_detections_get_the_highest_value(images: list[Image], mode: Mode) -> None:
    """Every object found once and nothing else: 1 in SAMPLE, TAO's (n - 1) / n in INTEGRATE."""
    perfect: list[Image] = [(objects, tuple((cell, True) for cell in objects)) for objects, _ in images]
    result = _measure(perfect, _distinct(perfect, range(_count(perfect))), mode=mode)
    count = result.objects
    assert result.true_positives == count
    assert result.highest_possible == (0 if not count else 1 if mode == "SAMPLE" else (count - 1) / count)
    assert abs(result.average_precision - result.highest_possible) < 1e-12


@given(images=IMAGES, mode=MODES, data=st.data())
def test_it_is_a_ratio_that_the_highest_value_bounds(images: list[Image], mode: Mode, data: st.DataObject) -> None:
    """AP lies between 0 and the highest possible value; true positives never exceed objects or detections."""
    shuffled = data.draw(st.permutations(range(_count(images))))
    result = _measure(images, _distinct(images, shuffled), mode=mode)
    assert 0 <= result.average_precision <= result.highest_possible + 1e-12
    assert result.true_positives <= min(result.objects, result.detections)


@given(images=IMAGES, mode=MODES, data=st.data())
def test_order_does_not_matter(images: list[Image], mode: Mode, data: st.DataObject) -> None:
    """With distinct confidences, images, labels and detections may come in any order."""
    confidence = _distinct(images, data.draw(st.permutations(range(_count(images)))))
    before = _measure(images, confidence, mode=mode)
    turned = [(objects[::-1], found[::-1]) for objects, found in images]
    sure = [one[::-1] for one in confidence]
    order = data.draw(st.permutations(range(len(images))))
    assert before == _measure([turned[i] for i in order], [sure[i] for i in order], mode=mode)


@given(images=IMAGES, mode=MODES, data=st.data())
def test_a_least_sure_mistake_costs_nothing(images: list[Image], mode: Mode, data: st.DataObject) -> None:
    """A false detection below all others changes no AP: precision counts only up to the last object found."""
    confidence = _distinct(images, data.draw(st.permutations(range(1, _count(images) + 1))))
    before = _measure(images, confidence, mode=mode)
    worse = [(images[0][0], (*images[0][1], (0, False))), *images[1:]]
    after = _measure(worse, [[*confidence[0], 0.0], *confidence[1:]], mode=mode)
    assert after.average_precision == before.average_precision
    assert after.detections == before.detections + 1


@given(images=IMAGES, data=st.data())
def test_a_mistake_never_helps(images: list[Image], data: st.DataObject) -> None:
    """A false detection, however sure, never raises AP in SAMPLE mode."""
    numbers = data.draw(st.permutations(range(_count(images) + 1)))
    worse = [(images[0][0], (*images[0][1], (0, False))), *images[1:]]
    confidence = _distinct(worse, numbers)
    less = [confidence[0][:-1], *confidence[1:]]
    assert (
        _measure(worse, confidence, mode="SAMPLE").average_precision
        <= _measure(images, less, mode="SAMPLE").average_precision + 1e-12
    )
