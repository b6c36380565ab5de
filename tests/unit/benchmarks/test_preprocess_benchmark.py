"""The preprocessing benchmarks, run small: what they print and write is complete and right."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tao2serve.runtime import resize

FOLDER = Path(__file__).parents[3] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """Import a benchmark under a name of its own: `preprocess` is the runtime's, too."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return loaded("preprocess")


def test_every_way_is_measured_and_judged(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way has a median, the table a row an image, and the first image a verdict with and without OpenCV."""
    path = tmp_path / "result.json"
    arguments = ["--rounds", "2", "--images", "2", "--network", "96", "64", "--json", str(path)]
    assert benchmark.main(arguments) == 0
    document = json.loads(path.read_text())
    expected = {"plain", "lanczos", "fast_pillow", "decode_pillow"}
    if resize.opencv() is not None:
        expected |= {"fast_opencv", "decode_opencv"}
    for image in document["images"]:
        assert set(image["ways"]) == expected
        assert all(0 < way["min_ms"] <= way["median_ms"] <= way["max_ms"] for way in image["ways"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" |")[0].split(",")[0] for line in lines[2:4]] == ["| JPEG 1920×1080", "| JPEG 1280×720"]
    assert [verdict["way"] for verdict in document["targets"]] == sorted(way for way in expected if "fast" in way)


@pytest.mark.parametrize(
    ("plain", "fast", "decode", "met"), [(30.0, 9.0, 8.0, True), (26.0, 9.0, 8.0, False), (40.0, 11.0, 8.0, False)]
)
def test_targets(benchmark: ModuleType, plain: float, fast: float, decode: float, met: bool) -> None:
    """Three times faster than the plain way, and at most 1.3 times a decode: both, by medians."""
    times = {"plain": [plain, 99.0, 0.1], "fast_opencv": [fast] * 3, "decode_pillow": [decode] * 3}
    case = benchmark.Measured(name="JPEG", width=1, height=1, image_bytes=1, times_ms=times)
    (verdict,) = benchmark.targets(case)
    assert verdict["met"] is met
    assert verdict["times_faster_than_plain"] == round(plain / fast, 2)


def test_the_photograph_is_one(benchmark: ModuleType) -> None:
    """It is the same each time, and costs a JPEG about as many bits as a photograph does: 1.5 to 4 a pixel."""
    image = benchmark.photograph(480, 272)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(benchmark.photograph(480, 272)))
    assert 1.5 < 8 * len(benchmark.encoded(image, "JPEG")) / (480 * 272) < 4


def test_the_effect_on_boxes_is_measured(tmp_path: Path) -> None:
    """Over two scenes at two sizes: a fast mode differs in pixels, the default not from itself, and boxes are found."""
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    modes = loaded("resize_modes")
    sources = [(500, 292, 1, "JPEG"), (384, 224, 1, "PNG")]
    seeds = range(modes.HELD_OUT_SEEDS, modes.HELD_OUT_SEEDS + 2)
    scenes = [modes.judge(seed, sources=sources, scratch=tmp_path) for seed in seeds]
    first, same_size = (modes.summary(sources[number], [scene[number] for scene in scenes]) for number in range(2))
    assert first["source"] == "JPEG 500x292"
    assert all(0 < first["pixels"][mode]["mean"] < 5 for mode in modes.MODES[1:])
    assert all(pixels == {"mean": 0.0, "p99": 0, "max": 0} for pixels in same_size["pixels"].values())
    for name in ("pruned", "unpruned"):
        assert first["models"][name]["lanczos"]["matched_ratio"] == 1.0
        assert first["models"][name]["lanczos"]["mean_average_precision"] > 0.5
        assert first["models"][name]["fast, OpenCV"]["matched_ratio"] > 0.7
    assert len(modes.table([first, same_size]).splitlines()) == 2 + 8
