"""Parity says whether two models give the same numbers, and where they part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import tiny_resnet
from onnx import numpy_helper

from tao2serve.errors import InputError, ParityError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import open_model, sample_images
from tao2serve.export.parity import check_parity, prove_parity
from tao2serve.parity.tensors import compare_tensors


def test_the_numpy_reading_equals_nvidia(golden: Path) -> None:
    """The reference itself gives the numbers of NVIDIA's Keras on every reference model."""
    for source in sorted((golden / "models").glob("*.hdf5")):
        arrays = np.load(source.with_suffix(".npz"))
        outputs = open_model(source).run(arrays["input"])
        assert np.abs(outputs.coverage - arrays["output_cov"]).max() < 2e-4, source.name
        assert np.abs(outputs.bbox - arrays["output_bbox"]).max() < 2e-4, source.name


def test_an_export_passes(tmp_path: Path) -> None:
    """What we export gives the numbers of its source, and the images are the same every time."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    images = sample_images(artifact.signature, count=3)
    np.testing.assert_array_equal(images, sample_images(artifact.signature, count=3))
    assert images.shape == (3, 3, 32, 48)
    assert images.dtype == np.float32
    report = check_parity(artifact, source, images=images)
    report.require()
    assert report.passed
    assert report.images == 3
    assert [x.name for x in report.tensors] == ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]
    assert report.worst.cosine == pytest.approx(1)


def test_a_difference_is_found_and_placed(tmp_path: Path) -> None:
    """A changed weight fails parity; the report names the worst tensor and the first layer that differs."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    model = onnx.load(str(artifact.path))
    tensor = next(x for x in model.graph.initializer if x.name == "block_1a_conv_1/kernel:0")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), name=tensor.name))
    onnx.save(model, str(tmp_path / "changed.onnx"))
    changed = accept_onnx(tmp_path / "changed.onnx")
    report = check_parity(changed, source, images=sample_images(artifact.signature))
    assert not report.passed
    assert report.first_divergence == "block_1a_conv_1"
    with pytest.raises(ParityError, match="does not give the numbers") as caught:
        report.require()
    assert report.worst.name in caught.value.evidence
    assert caught.value.exit_code == 7
    between = check_parity(changed, artifact.path, images=sample_images(artifact.signature))
    assert not between.passed


def test_comparison_of_tensors() -> None:
    """Distances are absolute; not-a-number is infinitely far; shapes must agree."""
    a = np.array([1.0, 0.0], np.float32)
    difference = compare_tensors(a, np.array([1.0, 0.5], np.float32), name="t")
    assert (difference.max_abs, difference.mean_abs) == (0.5, 0.25)
    assert difference.cosine == pytest.approx(1 / np.sqrt(1.25))
    assert compare_tensors(a, np.array([np.nan, 0], np.float32), name="t").max_abs == float("inf")
    assert compare_tensors(a * 0, a * 0, name="t").cosine == 1
    with pytest.raises(ParityError, match="another shape"):
        compare_tensors(a, a[:1], name="t")


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    """Images of another size are refused by either kind of model, with both shapes."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    for path in (source, artifact.path):
        with pytest.raises(InputError, match="cannot take these images") as caught:
            open_model(path).run(np.zeros((1, 3, 8, 8), np.float32))
        assert "(1, 3, 8, 8)" in caught.value.evidence
        assert "32, 48" in caught.value.evidence


def test_an_accepted_file_must_take_a_batch(tmp_path: Path) -> None:
    """A Reshape to one image inside a graph of open batch size is found before Triton meets it, and named."""
    path = export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx").path
    prove_parity(accept_onnx(path), path)
    model = onnx.load(str(path))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    user = next(node for node in model.graph.node if first.output[0] in node.input)
    shape = next(item for item in model.graph.value_info if item.name == first.output[0]).type.tensor_type.shape
    sizes = np.array([1, *(dim.dim_value for dim in shape.dim[1:])], dtype=np.int64)
    model.graph.initializer.append(numpy_helper.from_array(sizes, name="sizes"))
    place = list(user.input).index(first.output[0])
    user.input[place] = "one"
    index = list(model.graph.node).index(user)
    model.graph.node.insert(index, onnx.helper.make_node("Reshape", [first.output[0], "sizes"], ["one"], name="fixed"))
    del model.graph.value_info[:]
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="one image at a time") as caught:
        prove_parity(accept_onnx(path), path)
    assert "fixed" in caught.value.evidence
