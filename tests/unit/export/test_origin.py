"""Where an ONNX file came from: files of the real exporters, and what proves wrong pads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from onnx_files import like_keras2onnx, repad

from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import open_model, sample_images
from tao2serve.export.origin import origin_of, read_origin

DATA = Path(__file__).parents[2] / "data"


def _distance(one: Path, two: Path) -> float:
    """The largest difference of the coverage grids on two pictures."""
    models = open_model(one), open_model(two)
    images = sample_images(models[0].signature)
    return float(np.abs(models[0].run(images).coverage - models[1].run(images).coverage).max())


def test_real_exporters(tmp_path: Path) -> None:
    """One Keras file, both of TAO's routes: tf2onnx gives our numbers, keras2onnx does not, and its pads say why."""
    ours = export_onnx(DATA / "keras.hdf5", output=tmp_path / "ours.onnx")
    assert _distance(ours.path, DATA / "tf2onnx.onnx") < 1e-5
    assert _distance(ours.path, DATA / "keras2onnx.onnx") > 0.1
    right, wrong = read_origin(DATA / "tf2onnx.onnx"), read_origin(DATA / "keras2onnx.onnx")
    assert (right.exporter, right.naming, right.producer, right.opset) == ("tf2onnx", "tf2onnx", "tf2onnx 1.9.2", 12)
    assert (right.pad_findings, right.warning) == ((), "")
    assert (wrong.exporter, wrong.naming) == ("keras2onnx", "keras2onnx")
    found = {
        item.node: (item.op_type, item.kernel, list(item.pads), list(item.tao_pads)) for item in wrong.pad_findings
    }
    assert found == {
        "conv1": ("Conv", (7, 7), [2, 2, 3, 3], [3, 3, 3, 3]),
        "activation_1/Relu:0_pooling": ("MaxPool", (3, 3), [0, 0, 1, 1], [1, 1, 1, 1]),
        "block_1a_conv_1": ("Conv", (3, 3), [0, 0, 1, 1], [1, 1, 1, 1]),
    }
    assert "conv1: Conv 7x7, stride 2x2, pads [2, 2, 3, 3] where TAO's Keras has [3, 3, 3, 3]" in wrong.warning
    assert accept_onnx(DATA / "keras2onnx.onnx").warnings == (wrong.warning,)
    assert accept_onnx(DATA / "tf2onnx.onnx").warnings == ()
    assert read_origin(ours.path).exporter == "tao2serve"


def test_the_pads_are_the_whole_difference(tmp_path: Path) -> None:
    """With TAO's pads in the nodes that were found, the file of keras2onnx gives the numbers of tf2onnx."""
    model = onnx.load(str(DATA / "keras2onnx.onnx"))
    findings = read_origin(DATA / "keras2onnx.onnx").pad_findings
    # The pool follows a Relu, so it does not matter that ONNX pads it with the smallest number and TAO with 0.
    repaired = repad(model, {item.node: list(item.tao_pads) for item in findings})
    onnx.save(repaired, str(tmp_path / "repaired.onnx"))
    assert _distance(tmp_path / "repaired.onnx", DATA / "tf2onnx.onnx") < 1e-5
    assert read_origin(tmp_path / "repaired.onnx").pad_findings == ()


def _squeezenet(file: KerasFile) -> None:
    x = file.conv("conv1", file.input, 3, 6, strides=(2, 2), activation="relu")
    x = file.layer("pool1", "MaxPooling2D", {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}, [x])
    left = file.conv("left", x, 6, 4, kernel=(1, 1))
    right = file.conv("right", x, 6, 4)
    file.heads(file.layer("concat", "Concatenate", {"axis": 1}, [left, right]), 8)


def _resnet_pooling(file: KerasFile) -> None:
    x = file.conv("conv1", file.input, 3, 6, kernel=(7, 7), strides=(2, 2), activation="relu")
    pool = {"pool_size": [7, 7], "strides": [7, 7], "padding": "same"}
    file.heads(file.layer("avg_pool", "AveragePooling2D", pool, [x]), 6)


def _vgg_pooling(file: KerasFile) -> None:
    x = file.conv("conv1", file.input, 3, 6, activation="relu")
    x = file.layer("pool1", "MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "padding": "same"}, [x])
    file.heads(file.conv("conv2", x, 6, 6, activation="relu"), 6)


def _mobilenet(file: KerasFile) -> None:
    x = file.layer("conv1_pad", "ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}, [file.input])
    x = file.conv("conv1", x, 3, 6, strides=(2, 2), padding="valid", activation="relu")
    x = file.layer("pad_1", "ZeroPadding2D", {"padding": [[0, 1], [0, 1]]}, [x])
    x = file.depthwise("depthwise_1", x, 6, strides=(2, 2))
    file.heads(x, 6)


def _efficientnet(file: KerasFile) -> None:
    x = file.conv("conv1", file.input, 3, 6, kernel=(1, 1), activation="swish")
    # Merged into the convolution, this padding looks exactly like TensorFlow's.
    x = file.layer("stem_pad", "ZeroPadding2D", {"padding": [[0, 1], [0, 1]]}, [x])
    x = file.conv("stem_conv", x, 6, 6, strides=(2, 2), padding="valid", activation="swish")
    x = file.depthwise("depthwise_1", x, 6, padding="same")
    file.heads(x, 6)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (_squeezenet, {"Conv", "MaxPool"}),
        (_resnet_pooling, {"Conv", "AveragePool"}),
        (_vgg_pooling, set()),
        (_mobilenet, set()),
        (_efficientnet, set()),
    ],
)
def test_only_pads_that_prove_it(tmp_path: Path, template: object, found: set[str]) -> None:
    """A file of keras2onnx is warned about exactly if it gives other numbers than the Keras file."""
    file = KerasFile()
    assert callable(template)
    template(file)
    ours = export_onnx(file.write(tmp_path / "model.hdf5"), output=tmp_path / "ours.onnx")
    theirs = like_keras2onnx(onnx.load(str(ours.path)))
    onnx.save(theirs, str(tmp_path / "theirs.onnx"))
    assert {item.op_type for item in read_origin(tmp_path / "theirs.onnx").pad_findings} == found
    if "AveragePool" not in found:  # its grid has another size
        assert (_distance(tmp_path / "model.hdf5", tmp_path / "theirs.onnx") > 1e-3) == bool(found)


def test_the_same_pads_of_other_exporters() -> None:
    """Asymmetric pads prove nothing in files of tf2onnx, ours, or others; a lost producer is told by the names."""
    model = onnx.load(str(DATA / "keras2onnx.onnx"))
    expected = {"tf2onnx": "tf2onnx", "tao2serve": "tao2serve", "pytorch": "other"}
    for producer, exporter in expected.items():
        model.producer_name = producer
        origin = origin_of(model, subject="model")
        assert (origin.exporter, origin.pad_findings) == (exporter, ())
    for producer in ("", "onnx.quantize"):
        model.producer_name = producer
        origin = origin_of(model, subject="model")
        assert (origin.exporter, len(origin.pad_findings)) == ("keras2onnx", 3)
