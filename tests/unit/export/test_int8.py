"""Q/DQ pairs are where TensorRT wants them, with the scales that were given."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from onnx import ModelProto, TensorProto, helper, numpy_helper
from precision_files import accepted, detector, exported, hand_made, largest_ranges, model_of, outputs

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.precision.int8 import Quantized, quantize
from tao2serve.export.precision.nodes import constants, producers
from tao2serve.export.precision.ranges import Ranges, ranges_of, read_calibration_cache
from tao2serve.export.precision.write import to_precision
from tao2serve.parity.tensors import compare_tensors
from tao2serve.values import ModelArtifact


def _int8(artifact: ModelArtifact, ranges: Ranges | None = None) -> Quantized:
    return quantize(model_of(artifact), ranges or largest_ranges(artifact), subject="test")


def _arrays(model: ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {name: numpy_helper.to_array(item) for name, item in constants(model.graph).items()}


def _ranges(model: ModelProto, **amax: float) -> Ranges:
    return ranges_of(amax, model, subject="test", source="TAO calibration cache", method="test")


def test_a_residual_network_has_pairs_where_they_belong(tmp_path: Path) -> None:
    """Every convolution's input and one side of the residual are quantized, and nothing between Conv and Relu."""
    artifact = detector(tmp_path)
    made = _int8(artifact)
    onnx.checker.check_model(made.model, full_check=True)
    assert made.left_float == ()
    assert made.tensors == (
        "input_1:0",
        "activation_1/Relu:0",
        "block_1a_relu/Relu:0",
        "block_1a_conv_shortcut/BiasAdd:0",
    )
    by_output = producers(made.model.graph)
    for node in made.model.graph.node:
        if node.op_type == "Conv":
            assert [by_output[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        if node.op_type == "Relu":
            assert by_output[node.input[0]].op_type in ("Conv", "Add")
        if node.op_type == "Add":
            assert [by_output[name].op_type for name in node.input] == ["Conv", "DequantizeLinear"]


def test_scales_are_symmetric_and_per_channel_for_weights(tmp_path: Path) -> None:
    """Zero points are 0, activations have one scale, weights one an output channel on axis 0, biases stay float32."""
    model = _int8(detector(tmp_path)).model
    values = _arrays(model)
    by_output = producers(model.graph)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (values[name] for name in node.input[1:])
            assert (scale.dtype, zero.dtype) == (np.float32, np.int8)
            assert (scale > 0).all()
            assert not zero.any()
        if node.op_type == "Conv":
            pair = by_output[node.input[1]]
            stored = by_output[pair.input[0]].input[0]
            assert helper.get_node_attr_value(pair, "axis") == 0
            largest = np.abs(values[stored]).max(axis=(1, 2, 3))
            np.testing.assert_allclose(values[pair.input[1]], largest / 127, rtol=1e-6)
            assert values[node.input[2]].dtype == np.float32


def test_the_scale_in_the_file_is_the_caches_bit_for_bit(tmp_path: Path) -> None:
    """Arbitrary scales of a calibration cache are found again in the initializers, with the same 32 bits."""
    artifact = detector(tmp_path)
    model = model_of(artifact)
    random = np.random.default_rng(1)
    names = [name for node in model.graph.node for name in node.output] + ["input_1:0"]
    for _ in range(5):
        bits = {name: struct.pack(">f", random.uniform(1e-6, 3)).hex() for name in names}
        cache = tmp_path / "cache.bin"
        lines = "".join(f"{name}: {value}\n" for name, value in bits.items())
        cache.write_text(f"TRT-8501-EntropyCalibration2\n{lines}")
        made = _int8(artifact, read_calibration_cache(cache, model))
        assert len(made.tensors) == 4
        values = _arrays(made.model)
        found = {
            node.input[0]: struct.pack(">f", float(values[node.input[1]])).hex()
            for node in made.model.graph.node
            if node.op_type == "QuantizeLinear" and values[node.input[1]].ndim == 0
        }
        assert found == {name: bits[name] for name in made.tensors}


def test_the_numbers_are_close_and_the_outside_is_unchanged(tmp_path: Path) -> None:
    """int8 gives nearly the outputs of float32, under the same names and in the same order."""
    artifact = detector(tmp_path)
    made = _int8(artifact).model
    assert list(made.graph.output) == list(model_of(artifact).graph.output)
    assert list(made.graph.input) == list(model_of(artifact).graph.input)
    images = sample_images(artifact.signature, count=3)
    for ours, theirs in zip(outputs(model_of(artifact), images), outputs(made, images), strict=True):
        difference = compare_tensors(ours, theirs, name="output")
        assert difference.max_abs > 1e-5  # it is another precision
        assert difference.cosine > 0.999


def test_the_same_model_and_ranges_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the process, such as the order of a set, is in the file."""
    artifact = detector(tmp_path)
    ranges = largest_ranges(artifact)
    first, second = (_int8(artifact, ranges).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_range_is_taken_from_what_a_tensor_was_made_of(tmp_path: Path) -> None:
    """Behind zero padding, max pooling, reshaping and joining a tensor has the range of its sources."""
    file = KerasFile()
    x = file.layer("pad", "ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}, [file.input])
    x = file.conv("conv1", x, 3, 4, padding="valid", activation="relu")
    y = file.conv("conv2", file.input, 3, 4, activation="relu")
    x = file.layer("join", "Concatenate", {"axis": 1}, [x, y])
    x = file.layer("pool", "MaxPooling2D", {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}, [x])
    file.heads(x, 8)
    artifact = exported(file, tmp_path)
    model = model_of(artifact)
    made = _int8(artifact, _ranges(model, **{"input_1:0": 1.0, "conv1/Relu:0": 4.0, "conv2/Relu:0": 2.0}))
    assert made.left_float == ()
    values = _arrays(made.model)
    assert values["pool/MaxPool:0_scale"] == np.float32(4 / 127)
    assert values["pad/Pad:0_scale"] == np.float32(1 / 127)


def test_what_has_no_range_stays_float_and_is_listed(tmp_path: Path) -> None:
    """Convolutions whose input no range is known for are left alone; the file says which."""
    artifact = detector(tmp_path)
    ranges = _ranges(model_of(artifact), **{"input_1:0": 1.0, "activation_1/Relu:0": 4.0})
    made = _int8(artifact, ranges)
    assert made.left_float == ("output_bbox/BiasAdd:0", "output_cov/BiasAdd:0")
    assert made.tensors == ("input_1:0", "activation_1/Relu:0")
    news: list[str] = []
    written = to_precision(
        artifact, precision="int8", ranges=ranges, output=tmp_path / "int8.onnx", on_news=news.append
    )
    assert "2 convolutions stay float" in news[0]
    kept = {item.key: item.value for item in model_of(written).metadata_props}["tao2serve.left_float"]
    assert kept.splitlines() == list(made.left_float)


def test_ranges_that_meet_no_convolution_are_refused(tmp_path: Path) -> None:
    """A file called int8 that is float everywhere is not written."""
    artifact = detector(tmp_path)
    with pytest.raises(InputError, match="no convolution whose input has a range"):
        _int8(artifact, _ranges(model_of(artifact), **{"add_1/add:0": 4.0}))


def _squeeze_excite() -> KerasFile:
    file = KerasFile()
    x = file.conv("stem", file.input, 3, 4, strides=(2, 2), use_bias=False)
    x = file.layer("swish", "Activation", {"activation": "swish"}, [file.batch_norm("stem_bn", x, 4)])
    x = file.batch_norm("dw_bn", file.depthwise("dw", x, 4, padding="same", multiplier=2), 8)
    gate = file.layer("pool", "GlobalAveragePooling2D", {}, [x])
    gate = file.layer("shape", "Reshape", {"target_shape": [-1, 1, 1]}, [gate])
    gate = file.conv("gate", gate, 8, 8, kernel=(1, 1), activation="sigmoid")
    x = file.layer("excite", "Multiply", {}, [x, gate])
    y = file.layer("leaky", "LeakyReLU", {"alpha": 0.1}, [file.conv("side", x, 8, 8)])
    x = file.layer("sum", "Add", {}, [y, x])
    x = file.layer("mean", "AveragePooling2D", {"pool_size": [3, 3], "strides": [1, 1], "padding": "same"}, [x])
    file.heads(x, 8)
    return file


def test_every_kind_of_layer(tmp_path: Path) -> None:
    """Depthwise, squeeze-excite, swish, leaky residuals and average pooling become int8 and stay close."""
    artifact = exported(_squeeze_excite(), tmp_path)
    made = _int8(artifact)
    onnx.checker.check_model(made.model, full_check=True)
    assert made.left_float == ()
    assert "leaky/LeakyRelu:0" in made.tensors  # no convolution's own result, so the sum joins none
    images = sample_images(artifact.signature)
    for ours, theirs in zip(outputs(model_of(artifact), images), outputs(made.model, images), strict=True):
        assert compare_tensors(ours, theirs, name="output").cosine > 0.995


@pytest.mark.parametrize("opset", [11, 12, 17])
def test_files_of_other_exporters(tmp_path: Path, opset: int) -> None:
    """An accepted file of another opset, nodes without names and BatchNormalization nodes, becomes valid int8."""
    vector = np.linspace(0.5, 1.5, 4, dtype=np.float32)
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input_1", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "v", "v", "v", "v"], ["n"]),
        helper.make_node("Clip", ["n", "low", "high"], ["features"]),
    ]
    model = hand_made(
        nodes, {"w": kernel, "v": vector, "low": np.float32(0), "high": np.float32(6)}, opset=opset
    )  # fmt: skip
    artifact = accepted(model, tmp_path)
    ranges = _ranges(model, input_1=1.0, features=6.0)
    written = to_precision(artifact, precision="int8", ranges=ranges, output=tmp_path)
    assert written.path.name == "accepted_int8.onnx"
    assert accept_onnx(written.path).precision == "int8"
    made = model_of(written)
    assert max(x.version for x in made.opset_import) == max(opset, 13)
    images = sample_images(artifact.signature)
    for ours, theirs in zip(outputs(model, images), outputs(made, images), strict=True):
        assert compare_tensors(ours, theirs, name="output").cosine > 0.999


def test_weights_in_nodes_and_weights_that_are_inputs(tmp_path: Path) -> None:
    """Constant nodes and the old form, in which weights are inputs too, become stored weights that int8 covers."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(kernel)),
        helper.make_node("Conv", ["input_1", "w"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["features"]),
    ]
    model = hand_made(nodes, {"s": np.full((4, 1, 1), 0.5, np.float32)}, opset=12)
    model.ir_version = 3
    for item in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    artifact = accepted(model, tmp_path)
    for precision in ("fp32", "int8"):
        written = to_precision(
            artifact,
            precision=precision,
            ranges=_ranges(model, input_1=1.0, features=1.0),
            output=tmp_path / f"{precision}.onnx",
            fold=True,
        )
        made = model_of(written)
        images = sample_images(artifact.signature)
        for ours, theirs in zip(outputs(model, images), outputs(made, images), strict=True):
            assert compare_tensors(ours, theirs, name="output").cosine > 0.995
    by_output = producers(made.graph)
    kernels = [by_output[node.input[1]].op_type for node in made.graph.node if node.op_type == "Conv"]
    assert kernels == ["DequantizeLinear"] * 3
    assert [item.name for item in made.graph.input] == ["input_1"]


def test_no_integer_weights_or_biases_are_stored(tmp_path: Path) -> None:
    """TensorRT 8 refuses both: weights are float32 with a pair, biases float32, and only zero points are int8."""
    model = _int8(detector(tmp_path)).model
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    assert {kind for name, kind in kinds.items() if not name.endswith("_zero_point")} == {TensorProto.FLOAT}
