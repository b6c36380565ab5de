"""ONNX files of other exporters: signature under both naming schemes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import tiny_resnet
from onnx import TensorProto, helper, numpy_helper

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.signature import read_signature

TF2ONNX = ("input_1:0", "output_cov/Sigmoid:0", "output_bbox/BiasAdd:0")
KERAS2ONNX = ("input_1", "output_cov", "output_bbox")
TENSORRT = ("input_1", "output_cov/Sigmoid", "output_bbox/BiasAdd")


def _model(names: tuple[str, str, str], *, open_sizes: bool = False, classes: int = 2) -> onnx.ModelProto:
    """A network of two 1×1 convolutions at stride 2, with the outputs in keras2onnx's order."""
    source, coverage, bbox = names
    weights = [numpy_helper.from_array(np.ones((n, 3, 1, 1), np.float32), name=f"w{n}") for n in (classes, 4 * classes)]
    nodes = [
        helper.make_node("Conv", [source, weights[0].name], ["raw"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["raw"], [coverage]),
        helper.make_node("Conv", [source, weights[1].name], [bbox], strides=[2, 2]),
    ]
    size = ["h", "w"] if open_sizes else [8, 12]
    outputs = [
        helper.make_tensor_value_info(bbox, TensorProto.FLOAT, ["N", 4 * classes, *size]),
        helper.make_tensor_value_info(coverage, TensorProto.FLOAT, ["N", classes, *size]),
    ]
    inputs = [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["N", 3, 16, 24])]
    graph = helper.make_graph(nodes, "tao", inputs, outputs, initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


@pytest.mark.parametrize("names", [TF2ONNX, KERAS2ONNX, TENSORRT])
@pytest.mark.parametrize("open_sizes", [False, True])
def test_both_naming_schemes(tmp_path: Path, names: tuple[str, str, str], open_sizes: bool) -> None:
    """Outputs are told apart by name in any order; sizes left open are inferred."""
    path = tmp_path / "model.onnx"
    onnx.save(_model(names, open_sizes=open_sizes), str(path))
    artifact = accept_onnx(path)
    signature = artifact.signature
    assert (signature.input.name, signature.coverage.name, signature.bbox.name) == names
    assert signature.input.shape == (3, 16, 24)
    assert signature.coverage.shape == (2, 8, 12)
    assert signature.bbox.shape == (8, 8, 12)
    assert (signature.stride, signature.class_count) == (2, 2)
    assert artifact.sha256 == artifact.source_sha256
    assert artifact.path == path
    assert artifact.companions == ()


def test_export_takes_an_onnx_as_it_is(tmp_path: Path) -> None:
    """An ONNX source is accepted where it lies: same path, same bytes, nothing written."""
    first = export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    again = export_onnx(first.path, output=tmp_path / "other.onnx")
    assert (again.path, again.sha256, again.signature) == (first.path, first.sha256, first.signature)
    assert not (tmp_path / "other.onnx").exists()


def _external(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(content)))):
        tensor.external_data.add(key=key, value=value)
    return model


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", ""])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    """A model may not make us read files outside its own folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), location).SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        accept_onnx(path)


def test_external_data_through_a_symlink(tmp_path: Path) -> None:
    """A symlink out of the folder is outside as well."""
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "weights.bin")
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), "link.bin").SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        accept_onnx(path)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    """Weights beside the model are accepted and named, so that they can go where the model goes."""
    path = tmp_path / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), "weights.bin").SerializeToString())
    with pytest.raises(InputError, match="misses a file"):
        accept_onnx(path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    assert accept_onnx(path).companions == ((tmp_path / "weights.bin").resolve(),)


def test_files_that_are_no_detector(tmp_path: Path) -> None:
    """Garbage, empty files, other networks and broken graphs are InputErrors."""
    path = tmp_path / "model.onnx"
    for content in (b"", b"\x00\x01garbage" * 50, b"PK\x03\x04" + b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError):
            accept_onnx(path)
    onnx.save(_model(("images", "scores", "boxes")), str(path))
    with pytest.raises(InputError, match="no coverage output") as caught:
        read_signature(path)
    assert "scores" in caught.value.evidence
    broken = _model(TF2ONNX)
    broken.graph.node[0].input[0] = "nowhere"
    onnx.save(broken, str(path))
    with pytest.raises(InputError, match="not valid ONNX"):
        accept_onnx(path)
    wrong = _model(TF2ONNX)
    wrong.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    onnx.save(wrong, str(path))
    with pytest.raises(InputError, match="do not belong together"):
        read_signature(path)


def test_precision_is_what_the_file_carries(tmp_path: Path) -> None:
    """Half-precision weights are fp16."""
    model = _model(TF2ONNX)
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.elem_type = TensorProto.FLOAT16
    for index, tensor in enumerate(model.graph.initializer):
        half = numpy_helper.to_array(tensor).astype(np.float16)
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(half, name=tensor.name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    artifact = accept_onnx(tmp_path / "model.onnx")
    assert artifact.precision == "fp16"
    assert artifact.signature.input.datatype == "FP16"
