"""Calibration caches and trained ranges are read to the last bit, and only for the model they belong to."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_files import KerasFile
from onnx import ModelProto
from precision_files import detector, exported, model_of

from tao2serve.errors import InputError
from tao2serve.export.precision.fold import fold_batch_norm
from tao2serve.export.precision.qat import qat_ranges
from tao2serve.export.precision.ranges import (
    Ranges,
    read_calibration_cache,
    read_qat_scales,
    read_ranges,
    scale_of,
)
from tao2serve.tao.hdf5 import read_keras_hdf5

HEADER = "TRT-8501-EntropyCalibration2\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    return model_of(detector(tmp_path_factory.mktemp("model")))


def _cache(folder: Path, text: str) -> Path:
    path = folder / "calibration.bin"
    path.write_text(text)
    return path


def test_a_cache_is_read_to_the_last_bit(tmp_path: Path, model: ModelProto) -> None:
    """The scale of a tensor has exactly the bits of its line; amax is 127 of it."""
    ranges = read_calibration_cache(
        _cache(tmp_path, HEADER + "input_1:0: 3c010a14\nactivation_1/Relu:0: 3d8be6f1\n\n"), model
    )
    assert {name: struct.pack(">f", scale_of(amax)).hex() for name, amax in ranges.amax.items()} == {
        "input_1:0": "3c010a14",
        "activation_1/Relu:0": "3d8be6f1",
    }
    assert ranges.amax["input_1:0"] == pytest.approx(1.0, rel=1e-3)
    assert (ranges.source, ranges.method, ranges.images) == ("TAO calibration cache", "EntropyCalibration2", None)


@given(scale=st.floats(min_value=2**-126, max_value=2.0**120, width=32))
def test_no_scale_loses_a_bit(scale: float) -> None:
    """amax = scale · 127 is held so that dividing by 127 gives the same float32 again."""
    assert scale_of(scale * 127) == np.float32(scale)


@pytest.mark.parametrize(
    ("written", "tensor"),
    [
        ("input_1", "input_1:0"),
        ("input_1:0", "input_1:0"),
        ("bn_conv1/batchnorm_1/add_1:0", "bn_conv1/batchnorm/add_1:0"),
        ("bn_conv1/batchnorm_1/add_1", "bn_conv1/batchnorm/add_1:0"),
        ("output_cov/Sigmoid", "output_cov/Sigmoid:0"),
    ],
)
def test_spellings(tmp_path: Path, model: ModelProto, written: str, tensor: str) -> None:
    """Names without `:0`, and as NVIDIA's exporter for trained ranges spells batch norm, find their tensor."""
    assert set(read_calibration_cache(_cache(tmp_path, f"{HEADER}{written}: 3c010a14\n"), model).amax) == {tensor}


def test_names_that_are_none_of_the_models_are_left_out(tmp_path: Path, model: ModelProto) -> None:
    """TensorRT's own tensors, those tf2onnx numbers, and weights are no ranges; what is left out is listed."""
    text = (
        f"{HEADER}input_1:0: 3c010a14\n(Unnamed Layer* 7) [Shuffle]_output: 0\n"
        "ONNXTRT_Broadcast_output: 3c010a14\nRelu__41:0: 3c010a14\nconv1/kernel:0: 3c010a14\n"
    )
    ranges = read_calibration_cache(_cache(tmp_path, text), model)
    assert set(ranges.amax) == {"input_1:0"}
    assert ranges.left_out == ("(Unnamed Layer* 7) [Shuffle]_output", "ONNXTRT_Broadcast_output", "Relu__41:0")


def test_a_cache_of_another_model_is_refused(tmp_path: Path, model: ModelProto) -> None:
    """A name that the graph does not have is an error that names it; a folded model says why names are missing."""
    cache = _cache(tmp_path, HEADER + "input_1:0: 3c010a14\nconv1/BiasAdd:0: 3c010a14\nblock_9/Relu:0: 3c010a14\n")
    with pytest.raises(InputError, match="belongs to another model") as raised:
        read_calibration_cache(cache, model)
    assert raised.value.evidence == "1 of 3: block_9/Relu:0"
    with pytest.raises(InputError) as raised:
        read_calibration_cache(cache, fold_batch_norm(model))
    assert "conv1/BiasAdd:0" in raised.value.evidence
    assert "give the unfolded one" in raised.value.hint


@pytest.mark.parametrize("bits", ["0", "00000001", "bc010a14", "7f800000", "ff800000", "7fc00000", "80000000"])
def test_what_is_no_range_is_refused(tmp_path: Path, model: ModelProto, bits: str) -> None:
    """Zero, denormal, negative, infinite and NaN scales are InputError naming the tensor."""
    with pytest.raises(InputError, match="not a positive number") as raised:
        read_calibration_cache(_cache(tmp_path, f"{HEADER}input_1:0: {bits}\n"), model)
    assert raised.value.evidence.startswith("input_1:0: amax ")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "is not a calibration cache"),
        ("input_1:0: 3c010a14\n", "is not a calibration cache"),
        (HEADER, "belongs to another model"),
        (HEADER + "input_1:0 3c010a14\n", "line 2 that is no range"),
        (HEADER + "input_1:0: 3c010a14z\n", "line 2 that is no range"),
        (HEADER + "input_1:0: 3c010a14ff\n", "line 2 that is no range"),
        (HEADER + "(Unnamed Layer* 1) [Constant]_output: 3c010a14\n", "belongs to another model"),
        (HEADER + "".join(f"(Unnamed Layer* {i}): 0\n" for i in range(100_001)), "line 100002 that is no range"),
    ],
)
def test_other_texts_are_refused(tmp_path: Path, model: ModelProto, text: str, fact: str) -> None:
    """A missing header, a line that is none, too many lines and a file without a range are InputError."""
    with pytest.raises(InputError, match=fact):
        read_calibration_cache(_cache(tmp_path, text), model)


def test_files_that_are_no_text_are_refused(tmp_path: Path, model: ModelProto) -> None:
    """A binary file, one of gigabytes, a folder, a pipe and nothing at all are InputError, read only so far."""
    binary, huge = tmp_path / "binary", tmp_path / "huge"
    binary.write_bytes(b"\xff\xfe\x00")
    with huge.open("wb") as file:
        file.truncate(1 << 34)
    for path, fact in (
        (binary, "not a text file"),
        (huge, "too large"),
        (tmp_path, "not a file"),
        (tmp_path / "absent", "cannot be read"),
    ):
        with pytest.raises(InputError, match=fact):
            read_ranges(path, model)


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda x: (HEADER + x).encode())))
def test_any_bytes_give_ranges_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, model: ModelProto, content: bytes
) -> None:
    """No file makes a reader fail in another way."""
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(read_ranges(path, model), Ranges)


def test_trained_scales(tmp_path: Path, model: ModelProto) -> None:
    """TAO's JSON gives amax itself, and the file is told from a cache by how it begins."""
    path = tmp_path / "scales.json"
    path.write_text(json.dumps({"tensor_scales": {"input_1": 1, "bn_conv1/batchnorm_1/add_1:0": 5.5}}, indent=4))
    ranges = read_ranges(path, model)
    assert dict(ranges.amax) == {"input_1:0": 1.0, "bn_conv1/batchnorm/add_1:0": 5.5}
    assert ranges.source == "QAT scales"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"tensor_scales": []}',
        '{"tensor_scales": {}}',
        '{"tensor_scales": {"input_1:0": "1"}}',
        '{"tensor_scales": {"input_1:0": true}}',
        '{"tensor_scales": {"input_1:0": NaN}}',
        '{"tensor_scales": {"input_1:0": -1}}',
        '{"tensor_scales": {"input_1:0": 0}}',
        '{"tensor_scales": {"input_1:0": 1' + "0" * 400 + "}}",
        '{"tensor_scales": {"other": 1}}',
        '{"a":' + "[" * 100_000,
    ],
)
def test_other_json_is_refused(tmp_path: Path, model: ModelProto, text: str) -> None:
    """Anything but positive numbers by tensor is InputError."""
    path = tmp_path / "scales.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_qat_scales(path, model)


def _qdq(file: KerasFile, feed: str, amax: float) -> str:
    return file.layer(f"{feed}_qdq", "QDQ", {"bitwidth": 8}, [feed], [("scaling_factor", np.float32(amax))])


def _trained(*, cascaded: bool = False) -> KerasFile:
    file = KerasFile()
    x = _qdq(file, file.input, 1.0)
    if cascaded:
        x = _qdq(file, x, 1.0)
    x = file.conv("conv1", x, 3, 4, class_name="QuantizedConv2D")
    x = file.batch_norm("bn1", x, 4)
    x = file.layer("relu1", "ReLU", {"max_value": 6.0}, [x])
    x = _qdq(file, x, 5.75)
    x = file.conv("conv2", x, 4, 4, class_name="QuantizedConv2D", use_bias=False)
    x = _qdq(file, x, 3.1)
    file.heads(x, 4)
    return file


def test_qdq_layers_give_the_range_of_the_tensor_before_them(tmp_path: Path) -> None:
    """A QDQ layer's factor is the amax of the tensor it looks at, under that tensor's name in our graph."""
    artifact = exported(_trained(), tmp_path)
    ranges = qat_ranges(read_keras_hdf5(tmp_path / "model.hdf5"), model_of(artifact))
    assert dict(ranges.amax) == {
        "input_1:0": 1.0,
        "relu1/Relu6:0": 5.75,
        "conv2/convolution:0": float(np.float32(3.1)),
    }
    assert (ranges.source, ranges.method) == ("QAT scales", "training")


def test_a_convolution_may_carry_the_range_of_its_input(tmp_path: Path) -> None:
    """Where no QDQ layer precedes a quantized convolution its own factor counts, of two the larger."""
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 4, class_name="QuantizedConv2D")
    y = file.conv("conv2", file.input, 3, 4, class_name="QuantizedConv2D", use_bias=False)
    for name, factor in (("conv1", 1.5), ("conv2", 2.5)):
        next(layer for layer in file.layers if layer["name"] == name)["config"]["quantize"] = True
        file.weights[name].append((f"{name}/scaling_factor:0", np.float32(factor)))
    file.heads(file.layer("add", "Add", {}, [x, y]), 4)
    artifact = exported(file, tmp_path)
    assert dict(qat_ranges(read_keras_hdf5(tmp_path / "model.hdf5"), model_of(artifact)).amax) == {"input_1:0": 2.5}


def test_models_without_trained_ranges_are_refused(tmp_path: Path, model: ModelProto) -> None:
    """A plain model, and QDQ layers in a row (which TAO refuses), are InputError."""
    detector(tmp_path)
    with pytest.raises(InputError, match="not trained for quantization"):
        qat_ranges(read_keras_hdf5(tmp_path / "tiny.hdf5"), model)
    artifact = exported(_trained(cascaded=True), tmp_path)
    with pytest.raises(InputError, match="follows another QDQ"):
        qat_ranges(read_keras_hdf5(tmp_path / "model.hdf5"), model_of(artifact))
