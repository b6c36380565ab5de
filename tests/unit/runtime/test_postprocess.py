"""Grids to boxes: equal to NVIDIA's tao_deploy, and sane on degenerate grids."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tao2serve.runtime import Detections, DetectorParams, postprocess, postprocess_batch
from tao2serve.runtime.candidates import cell_centres
from tao2serve.runtime.pairs import Sweep

CASES = [
    f"{scene}/{config}"
    for scene in ("light_clean", "medium")
    for config in ("dbscan_infer", "dbscan_train", "dbscan_strict", "nms", "hybrid")
]


def make_params(reference: dict[str, Any], config: str) -> DetectorParams:
    classes = []
    for name in reference["classes"]:
        entry = dict(reference["configs"][config][name])
        entry["clustering"] = entry.pop("clustering_algorithm").lower()
        classes.append({"name": name, **entry})
    height, width = reference["input_hw"]
    return DetectorParams.from_dict(
        {
            "family": "detectnet_v2",
            "input": {"channels": 3, "height": height, "width": width},
            "bbox_scale": reference["bbox_scale"],
            "bbox_offset": reference["bbox_offset"],
            "classes": classes,
        }
    )


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "postprocess" / "tao_deploy.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_boxes_and_confidences_equal_tao_deploy(golden: Path, reference: dict[str, Any], case: str) -> None:
    """Every detection of NVIDIA's code is there, to 0.05 px and 1e-3 in confidence, and none besides."""
    scene, config = case.split("/")
    params = make_params(reference, config)
    grids = np.load(golden / "postprocess" / f"{scene}.npz")
    limit = np.array([params.width, params.height] * 2)
    for image, expected in enumerate(reference["cases"][case]["detections"]):
        size = tuple(int(side) for side in grids["orig_sizes_wh"][image])
        found = postprocess(grids["output_cov"][image], grids["output_bbox"][image], params, image_size=size)
        assert (np.diff(found.raw_score) <= 0).all()
        for class_id, name in enumerate(reference["classes"]):
            ours = found.class_id == class_id
            wanted = expected[name]
            assert ours.sum() == len(wanted)
            if not wanted:
                continue
            boxes = np.clip([box["bbox"] for box in wanted], 0, limit) * np.array([*size, *size]) / limit
            # NVIDIA's confidence is another box's for NMS and hybrid; the kept box's own coverage is the right one.
            key = "confidence" if config.startswith("dbscan") else "coverage_of_kept_box"
            confidence = np.array([box[key] for box in wanted])
            distance = np.abs(boxes[:, None] - found.xyxy[ours][None]).max(axis=2)
            nearest = distance.argmin(axis=1)
            assert sorted(nearest) == list(range(len(wanted)))
            assert distance.min(axis=1).max() < 0.05
            assert np.abs(confidence - found.raw_score[ours][nearest]).max() < 1e-3


def test_every_golden_case_is_judged(golden: Path, reference: dict[str, Any]) -> None:
    """No scene and no configuration of the reference data is left out above."""
    assert set(CASES) == set(reference["cases"])
    assert {case.split("/")[0] for case in CASES} == {path.stem for path in (golden / "postprocess").glob("*.npz")}


@pytest.mark.parametrize("config", ["dbscan_infer", "dbscan_train", "dbscan_strict", "nms", "hybrid"])
@pytest.mark.parametrize("scene", ["light_clean", "medium"])
def test_a_batch_gives_what_its_images_give(golden: Path, reference: dict[str, Any], scene: str, config: str) -> None:
    """`postprocess_batch` equals `postprocess` image by image, bit for bit."""
    params = make_params(reference, config)
    grids = np.load(golden / "postprocess" / f"{scene}.npz")
    cov, bbox, sizes = (
        grids["output_cov"],
        grids["output_bbox"],
        [tuple(size) for size in grids["orig_sizes_wh"].tolist()],
    )
    together = postprocess_batch(cov, bbox, params, image_sizes=sizes)
    assert len(together) == len(sizes)
    for image, found in enumerate(together):
        alone = postprocess(cov[image], bbox[image], params, image_size=sizes[image])
        for name in ("xyxy", "score", "raw_score", "class_id"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def one_class(**settings: Any) -> DetectorParams:
    return DetectorParams.from_dict(
        {
            "family": "detectnet_v2",
            "input": {"channels": 3, "height": 64, "width": 96},
            "bbox_scale": 35.0,
            "bbox_offset": 0.5,
            "classes": [{"name": "car", "clustering": "dbscan", "coverage_threshold": 0.1, **settings}],
        }
    )


def grids(*cells: tuple[int, int, float]) -> tuple[np.ndarray, np.ndarray]:
    """A 4x6 grid whose cells (row, column, coverage) all describe the box 10, 10, 50, 42."""
    cov = np.zeros((1, 4, 6), dtype=np.float32)
    bbox = np.zeros((4, 4, 6), dtype=np.float32)
    for row, column, value in cells:
        cov[0, row, column] = value
        x, y = column * 16 + 0.5, row * 16 + 0.5
        bbox[:, row, column] = np.array([x - 10, y - 10, 50 - x, 42 - y]) / 35.0
    return cov, bbox


def detect(params: DetectorParams, *cells: tuple[int, int, float]) -> Detections:
    return postprocess(*grids(*cells), params, image_size=(192, 64))


@pytest.mark.parametrize("clustering", ["dbscan", "nms", "hybrid"])
def test_empty_grids_give_no_boxes(clustering: str) -> None:
    """An image without candidates gives empty arrays of the documented shapes."""
    found = detect(one_class(clustering=clustering))
    assert len(found) == 0
    assert found.xyxy.shape == (0, 4)
    assert found.xyxy.dtype == np.float32


def test_cluster_is_the_weighted_mean_scaled_to_the_image() -> None:
    """x doubles for an image twice as wide; the raw score is the sum of coverage, the score the largest."""
    found = detect(one_class(), (1, 1, 0.6), (1, 2, 0.9))
    np.testing.assert_allclose(found.xyxy, [[20, 10, 100, 42]], atol=1e-3)
    assert found.raw_score[0] == pytest.approx(1.5)
    assert found.score[0] == pytest.approx(0.9)


def test_single_weak_cell_is_noise() -> None:
    """One cell alone is no cluster: its own coverage is below the one sample that a core needs."""
    assert len(detect(one_class(), (1, 1, 0.9))) == 0


def test_height_and_confidence_thresholds_drop_boxes() -> None:
    """Boxes not above the minimum height, or below the confidence threshold, are not reported."""
    cells = ((1, 1, 0.6), (1, 2, 0.9))
    assert len(detect(one_class(minimum_bounding_box_height=31), *cells)) == 1
    assert len(detect(one_class(minimum_bounding_box_height=33), *cells)) == 0
    assert len(detect(one_class(dbscan_confidence_threshold=1.4), *cells)) == 1
    assert len(detect(one_class(dbscan_confidence_threshold=1.6), *cells)) == 0


def test_tables_of_one_network_do_not_serve_another() -> None:
    """What is kept per parameters is kept by all of them: they hash alike when only their classes differ."""
    loose, strict = one_class(coverage_threshold=0.1), one_class(coverage_threshold=0.7)
    assert hash(loose) == hash(strict)
    assert loose != strict
    cells = ((1, 1, 0.6), (1, 2, 0.9), (2, 2, 0.9))
    for _ in range(2):
        assert detect(loose, *cells).raw_score[0] == pytest.approx(2.4)
        assert detect(strict, *cells).raw_score[0] == pytest.approx(1.8)


def test_values_that_are_not_finite_are_left_out() -> None:
    """NaN and infinity in a grid cost the cells that hold them and nothing else."""
    cov, bbox = grids((1, 1, 0.6), (1, 2, 0.9), (2, 3, 0.9), (3, 3, 0.9))
    bbox[0, 2, 3] = np.inf
    cov[0, 3, 3] = np.nan
    found = postprocess(cov, bbox, one_class(), image_size=(96, 64))
    np.testing.assert_allclose(found.xyxy, [[10, 10, 50, 42]], atol=1e-3)


def test_grids_that_do_not_fit_are_refused() -> None:
    """A wrong number of channels is named with the shape that is needed."""
    cov, bbox = grids()
    with pytest.raises(ValueError, match=r"needs \(4, 4, 6\)"):
        postprocess(cov, bbox[:3], one_class(), image_size=(96, 64))
    with pytest.raises(ValueError, match="1 classes"):
        postprocess(np.concatenate((cov, cov)), bbox, one_class(), image_size=(96, 64))


def test_a_grid_without_cells_is_refused() -> None:
    """A side of no cells has no stride."""
    with pytest.raises(ValueError, match="1 classes"):
        postprocess(np.zeros((1, 0, 6), np.float32), np.zeros((4, 0, 6), np.float32), one_class(), image_size=(96, 64))


def test_batches_that_do_not_fit_are_refused() -> None:
    """A batch needs one size an image, and as many grids of one kind as of the other; none is no error."""
    cov, bbox = (np.stack([grid, grid]) for grid in grids())
    with pytest.raises(ValueError, match="1 image sizes"):
        postprocess_batch(cov, bbox, one_class(), image_sizes=[(96, 64)])
    with pytest.raises(ValueError, match="cov is"):
        postprocess_batch(cov, bbox[:1], one_class(), image_sizes=[(96, 64)] * 2)
    with pytest.raises(ValueError, match="cov is"):
        postprocess_batch(cov[0], bbox[0], one_class(), image_sizes=[(96, 64)])
    with pytest.raises(ValueError, match="1 classes"):
        postprocess_batch(np.concatenate((cov, cov), axis=1), bbox, one_class(), image_sizes=[(96, 64)] * 2)
    assert postprocess_batch(cov[:0], bbox[:0], one_class(), image_sizes=[]) == ()


def test_ties_go_column_by_column() -> None:
    """Of two equally covered cells that exclude each other, that of the earlier column stays, not of the row."""
    cov, bbox = grids((0, 3, 0.8), (3, 1, 0.8))
    bbox[2, 3, 1] += 2 / 35.0  # its box ends two pixels farther right
    found = postprocess(cov, bbox, one_class(clustering="nms"), image_size=(96, 64))
    np.testing.assert_allclose(found.xyxy, [[10, 10, 52, 42]], atol=1e-3)


@pytest.mark.parametrize(("pixels", "cells"), [(64, 4), (540, 34), (80, 6)])
def test_cells_are_input_over_grid_apart(pixels: int, cells: int) -> None:
    """What TAO trains towards: index * input / grid + offset, whole number or not."""
    params = replace(one_class(), width=pixels, height=2 * pixels)
    x, y = cell_centres(params, rows=cells, columns=cells)
    np.testing.assert_allclose(x, [index * pixels / cells + 0.5 for index in range(cells)], rtol=1e-6)
    np.testing.assert_allclose(y, [index * 2 * pixels / cells + 0.5 for index in range(cells)], rtol=1e-6)


@pytest.mark.parametrize("clustering", ["dbscan", "nms", "hybrid"])
def test_boxes_that_never_touch_are_never_compared(clustering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of boxes far apart cost no pair at all, let alone n x n."""
    compared = []

    def overlaps(self: Sweep, pairs: Any) -> Any:
        compared.append(len(pairs[0]))
        return np.zeros(len(pairs[0]))

    monkeypatch.setattr(Sweep, "overlaps", overlaps)
    cells = np.arange(4000, dtype=np.float32) * 20
    cov = np.full((1, 1, 4000), 0.9, dtype=np.float32)
    bbox = np.stack((cells, 0 * cells, cells + 10, 0 * cells + 10))[:, None]
    params = replace(one_class(clustering=clustering), width=80_000)
    found = postprocess(cov, bbox, params, image_size=(80_000, 64), boxes="absolute")
    assert len(found) == (4000 if clustering == "nms" else 0)
    assert sum(compared) == 0


@pytest.mark.parametrize("coverage", [0.9, 0.0015], ids=["strong", "weak"])
@pytest.mark.parametrize("clustering", ["dbscan", "nms", "hybrid"])
def test_a_crowd_in_one_place_takes_little_memory(clustering: str, coverage: float) -> None:
    """2,040 candidates that all overlap, two million pairs, are clustered in a few megabytes."""
    rng = np.random.default_rng(0)
    cov = np.full((1, 34, 60), coverage, dtype=np.float32)
    bbox = (np.array([100, 100, 300, 300])[:, None, None] + rng.normal(0, 2, (4, 34, 60))).astype(np.float32)
    params = replace(one_class(clustering=clustering, coverage_threshold=0.001, dbscan_eps=0.3), width=960, height=544)
    tracemalloc.start()
    try:
        found = postprocess(cov, bbox, params, image_size=(960, 544), boxes="absolute")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == (1 if clustering == "dbscan" or coverage > 0.1 else 0)
    assert peak_bytes < 40e6
    if clustering == "dbscan":
        assert found.raw_score[0] == pytest.approx(coverage * 2040, rel=1e-4)
        np.testing.assert_allclose(found.xyxy[0], bbox.mean(axis=(1, 2)), atol=1e-2)


def test_params_survive_a_round_trip() -> None:
    """`to_dict` gives back the contract's document, and `from_dict` reads it."""
    params = one_class(dbscan_eps=0.3, confidence_model="mean_cov")
    document = json.loads(json.dumps(params.to_dict()))
    assert DetectorParams.from_dict(document) == params
    assert document["input"] == {"channels": 3, "height": 64, "width": 96}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "yolo"}, "family"),
        ({"input": {"channels": 2, "height": 1, "width": 1}}, "channels"),
        ({"input": None}, "input"),
        ({"classes": []}, "classes"),
        ({"classes": [{}]}, "no name"),
        ({"classes": [{"name": "car", "clustering": "kmeans"}]}, "kmeans"),
        ({"classes": [{"name": "car", "dbscan_eps": "wide"}]}, "dbscan_eps"),
        ({"bbox_scale": float("nan")}, "bbox_scale"),
    ],
)
def test_params_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    """A wrong field is refused by name."""
    with pytest.raises(ValueError, match=message):
        DetectorParams.from_dict({**one_class().to_dict(), **change})
