"""What is no DetectNet_v2 model, or not one that can be exported, is refused by name before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_files import KerasFile, write_keras
from templates import quantized, template, write_nested

from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.tao.hdf5 import read_keras_hdf5


def _refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        export_onnx(path, output=path.with_suffix(".onnx"))
    assert caught.value.exit_code == 3
    assert caught.value.subject.startswith(str(path))
    assert not path.with_suffix(".onnx").exists()
    return caught.value


def _detector(middle: Callable[[KerasFile, str], str]) -> KerasFile:
    """A detector with one layer of the caller's between convolution and heads."""
    file = KerasFile()
    file.heads(middle(file, file.conv("conv1", file.input, 3, 4)), 4)
    return file


@pytest.mark.parametrize(
    ("class_name", "hint"),
    [("Lambda", "never run"), ("PReLU", "tf2onnx"), ("Conv2DTranspose", "tf2onnx"), ("Softmax", "tf2onnx")],
)
def test_layers_that_cannot_be_exported(tmp_path: Path, class_name: str, hint: str) -> None:
    """The error names layer and class, says what is supported and what to do; a Lambda's code is never run."""
    file = _detector(lambda f, x: f.layer("odd_one", class_name, {"function": ["code", None, None]}, [x]))
    error = _refused(file.write(tmp_path / "model.hdf5"))
    assert "layer odd_one" in error.subject
    assert class_name in error.fact
    assert "Conv2D" in error.evidence
    assert hint in error.hint


def test_a_classifier_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """A model without coverage is no detector: that is said, and not that it holds a Dense layer."""
    file = KerasFile()
    x = file.layer("flatten", "Flatten", {}, [file.conv("conv1", file.input, 3, 4)])
    file.layer("predictions", "Dense", {"units": 3}, [x], [("kernel", np.ones((6144, 3)))])
    config = file.model_config()
    config["config"]["output_layers"] = [["predictions", 0, 0]]
    write_keras(tmp_path / "model.hdf5", config, file.weights)
    error = _refused(tmp_path / "model.hdf5")
    assert "no output output_cov" in error.fact
    assert "predictions" in error.evidence
    assert "backbone" in error.hint


def test_two_inputs(tmp_path: Path) -> None:
    """Both inputs are named."""
    file = _detector(lambda _f, x: x)
    file.layer("input_2", "InputLayer", {"batch_input_shape": [None, 1]})
    error = _refused(file.write(tmp_path / "model.hdf5"))
    assert "2 inputs" in error.fact
    assert "input_1, input_2" in error.evidence


def test_channels_last(tmp_path: Path) -> None:
    """Channels behind the size are refused wherever they show: input, convolution, normalisation, joining."""
    shape = _detector(lambda _f, x: x)
    shape.layers[0]["config"]["batch_input_shape"] = [None, 32, 48, 3]
    assert "layer input_1" in _refused(shape.write(tmp_path / "shape.hdf5")).subject
    axis = _detector(lambda f, x: f.batch_norm("bn", x, 4, axis=3))
    assert "axis 3" in _refused(axis.write(tmp_path / "axis.hdf5")).evidence
    joined = _detector(lambda f, x: f.layer("join", "Concatenate", {"axis": -1}, [x, x]))
    assert "layer join" in _refused(joined.write(tmp_path / "joined.hdf5")).subject
    pool = _detector(
        lambda f, x: f.layer("pool", "MaxPooling2D", {"pool_size": [2, 2], "data_format": "channels_last"}, [x])
    )
    assert "channels_first" in _refused(pool.write(tmp_path / "pool.hdf5")).fact


def test_a_coverage_that_is_no_ratio(tmp_path: Path) -> None:
    """The ONNX output is called a sigmoid, so the layer must end in one."""
    file = KerasFile()
    file.conv("output_bbox", file.input, 3, 8, kernel=(1, 1))
    file.conv("output_cov", file.input, 3, 2, kernel=(1, 1))
    error = _refused(file.write(tmp_path / "model.hdf5"))
    assert "layer output_cov" in error.subject
    assert "sigmoid" in error.fact


def test_files_of_another_keras(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keras 3 writes another graph and is refused; another Keras 2 may pad otherwise, which is said."""
    path = _detector(lambda _f, x: x).write(tmp_path / "model.hdf5")
    for version, refused in (("3.4.1", True), ("2.13.1", False), ("2.2.4", False)):
        caplog.clear()
        with h5py.File(path, "r+") as file:
            file.attrs["keras_version"] = version
        if refused:
            error = _refused(path)
            assert version in error.fact
            assert "2.2.4" in error.evidence
        else:
            read_keras_hdf5(path)
            assert ("padding" in caplog.text) == (version != "2.2.4")


@pytest.mark.parametrize(("keep", "fact"), [(-1, "fewer weights"), (None, "more weights")])
def test_nested_weights_that_do_not_come_out_even(tmp_path: Path, keep: int | None, fact: str) -> None:
    """A nested model's one list of weights must end with its last layer."""
    model = quantized(template("resnet10", width=0.05, input_chw=(3, 32, 48)))
    path = write_nested(tmp_path / "model.hdf5", model)
    with h5py.File(path, "r+") as file:
        group = next(x for x in file["model_weights"].values() if len(x.attrs["weight_names"]))
        names = list(group.attrs["weight_names"])
        group.attrs["weight_names"] = np.array(names[:keep] if keep else [*names, names[-1]])
    error = _refused(path)
    assert fact in error.fact
    assert "layer test_detectnet_v2" in error.subject
