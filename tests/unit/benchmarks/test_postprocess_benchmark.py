"""The parts of the postprocess benchmark: scenes, one side's process, what counts as the same boxes, the table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import postprocess
import postprocess_worker
import pytest
from grid_scenes import CLASSES, SCENES, Scene, grids_of

from tao2serve.runtime import DetectorParams
from tao2serve.runtime import postprocess as decode


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_scenes_are_the_same_for_the_same_seed(scene: str) -> None:
    """Grids of the network's shapes, whose coverage is above 0 and below 1, and that a seed repeats."""
    cov, bbox = grids_of(SCENES[scene], images=2, seed=5)
    again, _ = grids_of(SCENES[scene], images=2, seed=5)
    other, _ = grids_of(SCENES[scene], images=2, seed=6)
    assert (cov.shape, bbox.shape) == ((2, 3, 34, 60), (2, 12, 34, 60))
    assert cov.dtype == bbox.dtype == np.float32
    assert (cov > 0).all()
    assert (cov < 1).all()
    np.testing.assert_array_equal(cov, again)
    assert (cov != other).any()


@pytest.mark.parametrize("algorithm", sorted(postprocess.SETTINGS))
def test_a_scene_holds_the_objects_it_says(algorithm: str) -> None:
    """Few objects are found again, each by each algorithm, but for those that hide another."""
    params = DetectorParams.from_dict(postprocess.params_of(algorithm))
    cov, bbox = grids_of(Scene(objects=4), images=20, seed=2)
    counts = [len(decode(c, b, params, image_size=(960, 544))) for c, b in zip(cov, bbox, strict=True)]
    assert 3.5 <= np.mean(counts) <= 4.2
    empty = grids_of(Scene(objects=0), images=1, seed=2)
    assert len(decode(empty[0][0], empty[1][0], params, image_size=(960, 544))) == 0


def test_a_worker_decodes_and_times(tmp_path: Path) -> None:
    """Our side's process gives what our code gives, and a time for each image of each round."""
    cov, bbox = grids_of(SCENES["light"], images=2, seed=3)
    np.savez(tmp_path / "light.npz", output_cov=cov, output_bbox=bbox)
    document = postprocess.params_of("dbscan")
    with postprocess.worker(Path(sys.executable), "ours") as running:
        answer = running.ask(tmp_path / "light.npz", document, rounds=3)
        assert "numpy" in running.versions
    assert len(answer["wall_s"]) == len(answer["processor_s"]) == 3 * 2
    assert min(answer["wall_s"]) > 0
    for image, found in enumerate(answer["detections"]):
        wanted = decode(cov[image], bbox[image], DetectorParams.from_dict(document), image_size=(960, 544))
        np.testing.assert_allclose([row[2:] for row in found], wanted.xyxy, rtol=1e-6)
        np.testing.assert_allclose([row[1] for row in found], wanted.raw_score, rtol=1e-6)


def test_a_worker_that_ends_is_no_result() -> None:
    """A side whose process cannot start ends the benchmark, rather than being left out."""
    with (
        pytest.raises(SystemExit, match="ended"),
        postprocess.worker(Path(sys.executable), "nobody's"),
    ):
        pass


CAR = [0.0, 0.9, 10.0, 10.0, 50.0, 60.0]
BUS = [1.0, 0.8, 10.0, 10.0, 50.0, 60.0]


def moved(row: list[float], *, by: float = 0.0, confidence: float = 0.0) -> list[float]:
    return [row[0], row[1] + confidence, row[2] + by, *row[3:]]


def test_the_same_detections_in_another_order_are_the_same() -> None:
    """Order does not count, small differences do and are told; NVIDIA's box without width is our inverted one."""
    found = postprocess.differences([[CAR, BUS], []], [[moved(BUS, by=0.01), CAR], []], with_confidence=True)
    assert found["box_difference"] == pytest.approx(0.01)
    assert found["confidence_difference"] == 0
    inverted, flat = [0.0, 0.9, 50.0, 10.0, 40.0, 60.0], [0.0, 0.9, 50.0, 10.0, 50.0, 60.0]
    assert postprocess.differences([[inverted]], [[flat]], with_confidence=True)["box_difference"] == 0


@pytest.mark.parametrize(
    "theirs",
    [
        [CAR],
        [CAR, moved(BUS, by=0.06)],
        [CAR, CAR],
        [CAR, [0.0, *BUS[1:]]],
        [CAR, moved(BUS, confidence=0.002)],
    ],
)
def test_other_detections_end_the_benchmark(theirs: list[list[float]]) -> None:
    """A missing, moved or doubled box, another class or another confidence: nothing is compared."""
    with pytest.raises(SystemExit):
        postprocess.differences([[CAR, BUS]], [theirs], with_confidence=True)


def test_confidences_that_are_nvidias_mistake_do_not_count() -> None:
    """Those of NMS and hybrid belong to other boxes."""
    postprocess.differences([[CAR, BUS]], [[CAR, moved(BUS, confidence=-0.8)]], with_confidence=False)


def test_nvidia_reads_numbers_as_its_messages_hold_them() -> None:
    """Floats are float32, whole numbers stay, the algorithm has NVIDIA's name for it."""
    entry = postprocess.params_of("hybrid")["classes"][0]
    read = postprocess_worker._clustering(entry)
    assert read.clustering_algorithm == "hybrid"
    assert read.dbscan_eps == float(np.float32(0.3)) != 0.3
    assert read.minimum_bounding_box_height == 4


def test_the_table_says_worst_and_median() -> None:
    """A row a case, and the two ratios below."""
    case = {
        "scene": "light", "candidates": 100.4, "boxes": 5.0, "algorithm": "nms",
        "ours_processor_ms": 0.2, "theirs_processor_ms": 6.0, "ratio": 30.0, "processor_ratio": 29.0,
    }  # fmt: skip
    ratios = {f"{prefix}{name}_ratio": 30.0 for prefix in ("", "processor_") for name in ("worst", "median")}
    shown = postprocess.table({"cases": [case], **ratios})
    assert "| light | 100 | 5 | nms | 0.20 ms | 6.0 ms | 29.0 | 30.0 |" in shown
    assert "worst 30.0, median 30.0" in shown
    assert len(CLASSES) == 3
