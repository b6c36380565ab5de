"""Ranges are measured on the pixels that are served, one picture at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras_files import KerasFile
from PIL import Image
from precision_files import PARAMS, detector, exported, model_of, write_pictures

from tao2serve.errors import InputError
from tao2serve.export.inference import open_session
from tao2serve.export.precision.calibrate import METHODS, CalibrationMethod, calibrate, calibration_images
from tao2serve.export.precision.int8 import quantize
from tao2serve.export.precision.nodes import with_outputs
from tao2serve.runtime import preprocess


def test_the_largest_values_are_those_of_served_pixels(tmp_path: Path) -> None:
    """minmax is the largest absolute value of each tensor that int8 quantizes, over the pictures as served."""
    artifact = detector(tmp_path)
    model, images = model_of(artifact), write_pictures(tmp_path / "images", 3)
    ranges = calibrate(model, images, params=PARAMS, subject="test", method="minmax")
    made = quantize(model, ranges, subject="test")
    assert set(ranges.amax) == set(made.tensors)
    assert made.left_float == ()
    assert (ranges.source, ranges.method, ranges.images) == ("calibration images", "minmax", 3)
    session = open_session(with_outputs(model, list(ranges.amax)).SerializeToString())
    batch = np.stack([preprocess(path.read_bytes(), PARAMS)[0] for path in images])
    for name, amax in ranges.amax.items():
        (values,) = session.run([name], {"input_1:0": batch})
        assert amax == pytest.approx(float(np.abs(values).max()), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_usable_ranges(
    tmp_path: Path, method: CalibrationMethod, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clipping never widens a range and leaves most of it; the same pictures give the same ranges; stdout is silent."""
    model, images = model_of(detector(tmp_path)), write_pictures(tmp_path / "images", 4)
    news: list[str] = []
    widest = calibrate(model, images, params=PARAMS, subject="test", method="minmax").amax
    first = calibrate(model, images, params=PARAMS, subject="test", method=method, on_news=news.append)
    again = calibrate(model, images, params=PARAMS, subject="test", method=method)
    assert dict(first.amax) == dict(again.amax)
    assert set(first.amax) == set(widest)
    for name, value in first.amax.items():
        assert 0.3 * widest[name] < value <= widest[name]
    assert "largest values: 4 of 4 images" in news
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["minmax", "percentile"])  # entropy fills the same histograms
def test_a_dark_picture_first_does_no_harm(tmp_path: Path, method: CalibrationMethod) -> None:
    """A histogram that began on an almost black picture would need millions of bins; the ranges are those of all."""
    images = write_pictures(tmp_path / "images", 3)
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[0, 0] = 1
    dark = tmp_path / "images" / "dark.png"
    Image.fromarray(pixels).save(dark)
    model = model_of(detector(tmp_path))
    ranges = calibrate(model, (dark, *images), params=PARAMS, subject="test", method=method)
    assert ranges.amax["input_1:0"] > 0.8


def test_a_tensor_without_values_stays_float(tmp_path: Path) -> None:
    """A tensor that is zero on every picture gets no range, and the ranges say so; so do they of few pictures."""
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 4, activation="relu")
    file.weights["conv1"] = [("conv1/kernel:0", -np.ones((3, 3, 3, 4))), ("conv1/bias:0", -np.ones(4))]
    x = file.conv("conv2", x, 4, 4, activation="relu")
    file.heads(x, 4)
    model = model_of(exported(file, tmp_path))
    for method in METHODS:
        ranges = calibrate(model, write_pictures(tmp_path / "images", 2), params=PARAMS, subject="test", method=method)
        assert "conv1/Relu:0" not in ranges.amax
        assert ranges.notes[0].startswith("2 images are few")
        assert ranges.notes[1] == "conv1/Relu:0 is zero on every image and stays float"
        assert "conv2/BiasAdd:0" in quantize(model, ranges, subject="test").left_float


def test_values_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    """A network that overflows float32, or gives NaN, is named with the tensor rather than calibrated."""
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 4, kernel=(1, 1))
    x = file.conv("conv2", x, 4, 4, kernel=(1, 1))
    file.weights["conv1"][0] = ("conv1/kernel:0", np.full((1, 1, 3, 4), 3e38))
    file.heads(file.conv("conv3", x, 4, 4, kernel=(1, 1)), 4)
    model = model_of(exported(file, tmp_path))
    with pytest.raises(InputError, match="not finite") as raised:
        calibrate(model, write_pictures(tmp_path / "images", 1), params=PARAMS, subject="test")
    assert "conv1/BiasAdd:0" in raised.value.evidence


def test_unusable_images_are_named(tmp_path: Path) -> None:
    """Every file that is no image is in the error, after all were tried, and images of no number are refused."""
    images = write_pictures(tmp_path / "images", 2)
    (tmp_path / "images" / "a.jpg").write_bytes(b"not a picture")
    (tmp_path / "images" / "z.png").write_bytes(images[0].read_bytes()[:50])
    model = model_of(detector(tmp_path))
    with pytest.raises(InputError, match="2 of 4 images cannot be used") as raised:
        calibrate(model, calibration_images(tmp_path / "images"), params=PARAMS, subject="test")
    assert "a.jpg: " in raised.value.evidence
    assert "z.png: " in raised.value.evidence
    with pytest.raises(InputError, match="without images"):
        calibrate(model, (), params=PARAMS, subject="test")


def test_the_images_of_a_folder(tmp_path: Path) -> None:
    """Images are taken by their names' endings, in order, thinned out evenly; a folder without any is an error."""
    (tmp_path / "labels.txt").write_text("car")
    with pytest.raises(InputError, match="holds no image"):
        calibration_images(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        calibration_images(tmp_path / "absent")
    names = [f"{index:02d}.{ending}" for index, ending in enumerate(["PNG", "jpg", "jpeg", "bmp", "webp"] * 2)]
    for name in reversed(names):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in calibration_images(tmp_path)] == names
    assert [path.name for path in calibration_images(tmp_path, most=4)] == [names[i] for i in (0, 2, 5, 7)]


def test_pictures_without_light_are_an_error(tmp_path: Path) -> None:
    """Black pictures through a network without biases leave nothing to measure, which the error says."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4, activation="relu", use_bias=False), 4)
    black = tmp_path / "black.png"
    Image.new("RGB", (60, 40)).save(black)
    with pytest.raises(InputError, match="anything but zeros"):
        calibrate(model_of(exported(file, tmp_path)), (black,), params=PARAMS, subject="test")
