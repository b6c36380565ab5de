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
from tao2serve.export.precision.carried import precision_of
from tao2serve.export.signature import read_signature
from tao2serve.export.stored import check_stored

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


OUTSIDE = [
    "../weights.bin",
    "/etc/hostname",
    "a/../../weights.bin",
    "",
    ".",
    "..\\weights.bin",
    "C:weights.bin",
    "w\0.bin",
]
PLACES = ["initializer", "constant", "branch", "function", "sparse", "training"]


def _put(model: onnx.ModelProto, tensor: TensorProto, place: str) -> None:
    """Hide one more tensor in a model."""
    graph = helper.make_graph([], "inner", [], [], initializer=[tensor])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=tensor))
    elif place == "branch":
        inner = helper.make_node("Loop", [], ["z"], body=graph)
        outer = helper.make_graph([inner], "outer", [], [])
        model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer))
    elif place == "function":
        node = helper.make_node("Constant", [], ["hidden"], value=tensor)
        model.functions.append(helper.make_function("", "Mine", [], ["hidden"], [node], model.opset_import))
    elif place == "sparse":
        model.graph.sparse_initializer.add(values=tensor, dims=[16])
    else:
        model.training_info.add().initialization.CopyFrom(graph)


def _stored_outside(location: str, **further: str) -> TensorProto:
    tensor = TensorProto(name="weights", dims=[16], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **further}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    """A model may not make us read files outside its own folder, however it spells them."""
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), location).SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        accept_onnx(path)


@pytest.mark.parametrize("place", PLACES)
def test_external_data_in_every_corner(tmp_path: Path, place: str) -> None:
    """Tensors in branches, loops, functions, sparse ones and constants are held to the same rule."""
    model = _model(TF2ONNX)
    _put(model, _stored_outside("/etc/hostname"), place)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"outside its own folder|operators of its own") as caught:
        check_stored(path, model)
    assert "/etc/hostname" in caught.value.evidence
    with pytest.raises(InputError):
        accept_onnx(path)


def test_external_data_through_a_symlink(tmp_path: Path) -> None:
    """A symlink out of the folder is outside as well, one within it is not followed either."""
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "weights.bin")
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), "link.bin").SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        accept_onnx(path)
    (tmp_path / "in" / "weights.bin").write_bytes(b"\0" * 64)
    (tmp_path / "in" / "link.bin").unlink()
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "in" / "weights.bin")
    with pytest.raises(InputError, match="behind a symbolic link"):
        accept_onnx(path)
    (tmp_path / "in" / "below").symlink_to(tmp_path / "in")
    path.write_bytes(_external(_model(TF2ONNX), "below/weights.bin").SerializeToString())
    with pytest.raises(InputError, match="behind a symbolic link"):
        accept_onnx(path)


@pytest.mark.parametrize(
    "name", ["model.py", "numpy.so", "config.pbtxt", "params.json", "experiment_spec.txt", "model.onnx"]
)
def test_external_data_named_like_a_file_of_ours(tmp_path: Path, name: str) -> None:
    """Weights that would replace model.py or the settings where the model is served are refused by their name."""
    (tmp_path / name).write_bytes(b"\0" * 64)
    path = tmp_path / "network.onnx"
    path.write_bytes(_external(_model(TF2ONNX), name).SerializeToString())
    with pytest.raises(InputError, match="not for weights"):
        accept_onnx(path)


@pytest.mark.parametrize(
    ("entries", "fact"),
    [
        ({"offset": "8", "length": "64"}, "misses some of its weights"),
        ({"offset": "-1"}, "no number"),
        ({"offset": "9" * 30}, "no number"),
        ({"offset": "0x1"}, "no number"),
        ({"length": "4"}, "another size than its shape"),
        ({"offset": str(1 << 60)}, "misses some of its weights"),
    ],
)
def test_external_data_beyond_the_file(tmp_path: Path, entries: dict[str, str], fact: str) -> None:
    """Offset and length must lie in the file and fit the shape."""
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    model = _model(TF2ONNX)
    model.graph.initializer.append(_stored_outside("weights.bin", **entries))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=fact):
        accept_onnx(path)


def test_external_data_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beside the model are accepted and named relative to it, so that they can go where it goes."""
    path = tmp_path / "model.onnx"
    path.write_bytes(_external(_model(TF2ONNX), "weights.bin").SerializeToString())
    with pytest.raises(InputError, match="misses a file"):
        accept_onnx(path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    assert accept_onnx(path).companions == (tmp_path / "weights.bin",)
    monkeypatch.chdir(tmp_path)
    assert accept_onnx(Path("model.onnx")).companions == (Path("weights.bin"),)
    first = accept_onnx(path)
    (tmp_path / "weights.bin").write_bytes(b"\1" * 64)
    second = accept_onnx(path)
    assert first.sha256 == second.sha256
    assert first.source_sha256 != second.source_sha256
    (tmp_path / "weights.bin").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="not finite"):
        accept_onnx(path)


def test_tensors_that_are_not_what_their_shape_says(tmp_path: Path) -> None:
    """A tensor of a huge or negative size, or with too few bytes, is refused before any library believes it."""
    path = tmp_path / "model.onnx"
    for dims in ([1 << 62, 1 << 62], [-1], [3], [1 << 40, 0, 1 << 40, 5]):
        model = _model(TF2ONNX)
        model.graph.initializer.add(name="x", dims=dims, data_type=TensorProto.FLOAT, raw_data=b"\0" * 16)
        onnx.save(model, str(path))
        with pytest.raises(InputError, match=r"another size than its shape|negative size"):
            accept_onnx(path)
    for dim in (1 << 40, (1 << 63) - 1):
        model = _model(TF2ONNX)
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = dim
        onnx.save(model, str(path))
        with pytest.raises(InputError, match="sizes that no detector has"):
            accept_onnx(path)


def test_a_tensor_in_the_middle_that_fills_the_memory(tmp_path: Path) -> None:
    """Sizes ONNX infers within the network are bounded too, before anything allocates them."""
    model = _model(TF2ONNX)
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20]), name="pads")
    model.graph.initializer.append(pads)
    model.graph.node.insert(0, helper.make_node("Pad", ["input_1:0", "pads"], ["padded"]))
    model.graph.node[1].input[0] = "padded"
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(InputError, match="impossible size") as caught:
        accept_onnx(tmp_path / "model.onnx")
    assert "padded is [0, 3, 1048592, 1048600]" in caught.value.evidence


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    """NaN or infinity among weights is named; a single infinite number is a limit, and stays."""
    path = tmp_path / "model.onnx"
    for value in (np.nan, np.inf):
        model = _model(TF2ONNX)
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, value], np.float32), name="bad"))
        onnx.save(model, str(path))
        with pytest.raises(InputError, match="not finite") as caught:
            accept_onnx(path)
        assert "'bad'" in caught.value.evidence
    model = _model(TF2ONNX)
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.inf, np.float32), name="limit"))
    onnx.save(model, str(path))
    assert accept_onnx(path).precision == "fp32"


def test_operators_and_versions_triton_does_not_know(tmp_path: Path) -> None:
    """Foreign domains are named wherever they hide; loops, functions, newer opsets and IR versions are refused."""
    path = tmp_path / "model.onnx"
    inner = helper.make_graph([helper.make_node("Nms", [], ["z"], domain="com.acme")], "inner", [], [])
    foreign = _model(TF2ONNX)
    foreign.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
    endless = _model(TF2ONNX)
    endless.graph.node.append(helper.make_node("Loop", ["n"], ["y"], body=helper.make_graph([], "body", [], [])))
    function = _model(TF2ONNX)
    function.functions.append(helper.make_function("ai.onnx", "Mine", [], [], [], function.opset_import))
    opset, version, silent = (_model(TF2ONNX) for _ in range(3))
    opset.opset_import[0].version = 999
    version.ir_version = 999
    del silent.opset_import[:]
    for model, fact, evidence in (
        (foreign, "plain Triton cannot load", "com.acme::Nms"),
        (endless, "runs in a loop", "Loop"),
        (function, "operators of its own", "Mine"),
        (opset, "newer ONNX operators", "opset 999"),
        (version, "newer ONNX", "IR version 999"),
        (silent, "does not say which", "[]"),
    ):
        onnx.save(model, str(path))
        with pytest.raises(InputError, match=fact) as caught:
            accept_onnx(path)
        assert evidence in caught.value.evidence


def test_inputs_an_endpoint_cannot_feed(tmp_path: Path) -> None:
    """A fixed batch, an open height, channels last, bytes as input, another rank: each refused in its own words."""

    def changed(shape: list[object] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        model = _model(TF2ONNX)
        info = helper.make_tensor_value_info("input_1:0", kind, ["N", 3, 16, 24] if shape is None else shape)
        model.graph.input[0].CopyFrom(info)
        return model

    for model, fact in (
        (changed([1, 3, 16, 24]), "batch size fixed to 1"),
        (changed([8, 3, 16, 24]), "batch size fixed to 8"),
        (changed(["N", 3, "h", "w"]), "does not have a fixed"),
        (changed(["N", 16, 24, 3]), "channels first"),
        (changed(["N", 3, 16]), "does not have a fixed"),
        (changed([]), "does not have a fixed"),
        (changed(kind=TensorProto.UINT8), "floating point"),
        (changed(kind=TensorProto.STRING), "of a type no detector has"),
    ):
        onnx.save(model, str(tmp_path / "model.onnx"))
        with pytest.raises(InputError, match=fact):
            accept_onnx(tmp_path / "model.onnx")
    unknown = changed()
    unknown.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1  # as some exporters write an open size
    onnx.save(unknown, str(tmp_path / "model.onnx"))
    assert accept_onnx(tmp_path / "model.onnx").signature.input.shape == (3, 16, 24)


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


@pytest.mark.parametrize("text", ["output_cov/Sigmoid:0", "Conv", "strides", "ai.onnx", "raw"])
def test_texts_that_are_not_utf8(tmp_path: Path, text: str) -> None:
    """protobuf gives bytes for them, which no reader expects: names, operators, attributes, domains, edges."""
    model = _model(TF2ONNX)
    model.opset_import[0].domain = "ai.onnx"
    content = model.SerializeToString()
    assert text.encode() in content
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(text.encode(), b"\xff" + text.encode()[1:]))
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read_signature(path)
    assert r"\xff" in caught.value.evidence


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


@pytest.mark.parametrize(
    ("operator", "precision"),
    [
        ("QuantizeLinear", "int8"),
        ("DequantizeLinear", "int8"),
        ("QLinearConv", "int8"),
        ("DynamicQuantizeLinear", "int8"),
        ("ConvInteger", "int8"),
        ("Relu", "fp32"),
    ],
)
def test_every_form_of_quantization_is_int8(operator: str, precision: str) -> None:
    """Weights alone, onnxruntime's QOperator format and its dynamic quantization count as well."""
    model = _model(TF2ONNX)
    model.graph.node.append(helper.make_node(operator, ["a"], ["b"]))
    assert precision_of(model) == precision


def test_half_precision_weights_may_be_constants() -> None:
    """Exporters write weights as Constant nodes too."""
    model = _model(TF2ONNX)
    half = numpy_helper.from_array(np.zeros(4, np.float16))
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=half))
    assert precision_of(model) == "fp16"
