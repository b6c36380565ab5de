"""The fast postprocess equals the plain one on any grids: ties, duplicates, tiny and inverted boxes, NaN, infinity."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_postprocess import Detection, plain_postprocess

from tao2serve.runtime import ClassParams, Detections, DetectorParams, postprocess, postprocess_batch
from tao2serve.runtime.candidates import absolute_boxes, find_candidates

IMAGE = (1280, 720)
# Steps of 1/64 tie often, and their sums are exact.
COVERAGE = st.one_of(
    st.just(0.0),
    st.integers(1, 64).map(lambda step: step / 64),
    st.floats(1 / 256, 1.0, width=32),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1.0]),
)
# Few values, so that boxes repeat, touch, are of no size, or inverted.
SIDE = st.one_of(
    st.sampled_from([0.0, 10.0, 12.0, 40.0, 41.0, 50.0, 64.0, 90.0]),
    st.floats(-50.0, 200.0, width=32),
    st.sampled_from([float("nan"), float("inf"), 1e30, -1e30, 3e38, 2e6, 1e-30]),
)
CLASS = st.builds(
    ClassParams,
    name=st.just("car"),
    clustering=st.sampled_from(["dbscan", "nms", "hybrid"]),
    coverage_threshold=st.sampled_from([0.0, 0.005, 0.1, 0.25]),
    minimum_bounding_box_height=st.sampled_from([0, 4, 30]),
    dbscan_eps=st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.5, 0.9, 1.0, 1.5]),
    dbscan_min_samples=st.sampled_from([0, 1, 2, 3]),
    dbscan_confidence_threshold=st.sampled_from([0.0, 0.5, 0.9, 1.5]),
    nms_iou_threshold=st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]),
    nms_confidence_threshold=st.sampled_from([0.0, 0.05, 0.5]),
    confidence_model=st.sampled_from(["aggregate_cov", "mean_cov"]),
)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, DetectorParams]:
    """Grids of up to three images, whose boxes are taken from a few, and settings of up to three classes."""
    classes = tuple(draw(st.lists(CLASS, min_size=1, max_size=3)))
    images, rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    shape = (images, len(classes), rows, columns)
    cells = int(np.prod(shape))
    cov = np.array(draw(st.lists(COVERAGE, min_size=cells, max_size=cells)), dtype=np.float32).reshape(shape)
    pool = np.array(draw(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), min_size=1, max_size=8)), dtype=np.float32)
    chosen = np.array(draw(st.lists(st.integers(0, len(pool) - 1), min_size=cells, max_size=cells)))
    bbox = np.moveaxis(pool[chosen].reshape(*shape, 4), 4, 2).reshape(images, -1, rows, columns)
    params = DetectorParams(
        channels=3,
        height=draw(st.sampled_from([rows * 16, rows * 16 + 5])),
        width=draw(st.sampled_from([columns * 16, columns * 16 + 7])),
        bbox_scale=35.0,
        bbox_offset=0.5,
        classes=classes,
    )
    return cov, bbox, params


def assert_same(found: Detections, wanted: list[Detection]) -> None:
    assert found.class_id.tolist() == [one.class_id for one in wanted]
    for values, plain in (
        (found.raw_score, [one.raw_score for one in wanted]),
        (found.score, [one.score for one in wanted]),
        (found.xyxy, np.array([one.xyxy for one in wanted]).reshape(-1, 4)),
    ):
        np.testing.assert_allclose(values, plain, rtol=1e-5, atol=1e-4)


@settings(max_examples=400, deadline=None)
@given(scenes(), st.booleans())
def test_it_equals_the_plain_loops(scene: tuple[np.ndarray, np.ndarray, DetectorParams], absolute: bool) -> None:
    """Same boxes, classes, confidences and order, image by image and as a batch, from offsets and from boxes."""
    cov, bbox, params = scene
    encoding: Any = "absolute" if absolute else "offsets"
    batch = postprocess_batch(cov, bbox, params, image_sizes=[IMAGE] * len(cov), boxes=encoding)
    assert len(batch) == len(cov)
    for image, together in enumerate(batch):
        alone = postprocess(cov[image], bbox[image], params, image_size=IMAGE, boxes=encoding)
        assert_same(alone, plain_postprocess(cov[image], bbox[image], params, image_size=IMAGE, absolute=absolute))
        for name in ("xyxy", "score", "raw_score", "class_id"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_candidates_have_the_bits_of_the_whole_grid_decoded(
    scene: tuple[np.ndarray, np.ndarray, DetectorParams],
) -> None:
    """Decoding only what is covered gives what decoding everything, as a graph does, gives."""
    cov, bbox, params = scene
    with np.errstate(all="ignore"):
        offsets = find_candidates(cov[0], bbox[0], params)
        boxes = find_candidates(cov[0], absolute_boxes(bbox[0], params), params, boxes="absolute")
    np.testing.assert_array_equal(offsets.ltrb, boxes.ltrb)
    np.testing.assert_array_equal(offsets.coverage, boxes.coverage)


@settings(max_examples=60, deadline=None)
@given(scene=scenes())
def test_small_pieces_and_little_memory_change_nothing(
    scene: tuple[np.ndarray, np.ndarray, DetectorParams],
) -> None:
    """What a crowd makes it do, searching in pieces, anew, or box by box, gives the same."""
    cov, bbox, params = scene
    usual = postprocess(cov[0], bbox[0], params, image_size=IMAGE)
    runtime = "tao2serve.runtime."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[runtime + "pairs"], "_PIECE", 3)
        patch.setattr(sys.modules[runtime + "dbscan"], "_NEAREST", 1)
        patch.setattr(sys.modules[runtime + "dbscan"], "_KEPT", 0)
        patch.setattr(sys.modules[runtime + "nms"], "_CROWDED", 0)
        small = postprocess(cov[0], bbox[0], params, image_size=IMAGE)
    for name in ("class_id", "raw_score", "score", "xyxy"):
        np.testing.assert_allclose(getattr(small, name), getattr(usual, name), rtol=1e-5, atol=1e-4)
