"""What export does with files that are not what it needs, and what it leaves behind."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile, tiny_resnet

from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.tao.spec import read_spec

SPEC = """
augmentation_config {{ preprocessing {{
  output_image_width: {width} output_image_height: 32 output_image_channel: 3 }} }}
cost_function_config {{ {classes} }}
"""


def _spec(path: Path, *, width: int = 48, classes: int = 2) -> Path:
    names = " ".join(f'target_classes {{ name: "class_{i}" }}' for i in range(classes))
    path.write_text(SPEC.format(width=width, classes=names))
    return path


def test_model_and_spec_of_one_run(tmp_path: Path) -> None:
    """A spec that fits is accepted and does not change the bytes."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    plain = export_onnx(source, output=tmp_path / "plain.onnx")
    spec = read_spec(_spec(tmp_path / "spec.txt"))
    checked = export_onnx(source, output=tmp_path / "checked.onnx", spec=spec)
    assert plain.sha256 == checked.sha256
    assert checked.signature.stride == 4
    assert checked.precision == "fp32"


def test_a_spec_of_another_run_shows_both_sides(tmp_path: Path) -> None:
    """Class count and input size must agree; the error shows model and spec, and nothing is written."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    spec = read_spec(_spec(tmp_path / "spec.txt", width=64, classes=3))
    with pytest.raises(InputError, match="does not belong") as caught:
        export_onnx(source, output=tmp_path / "model.onnx", spec=spec)
    assert "the model has 2, the spec has 3" in caught.value.evidence
    assert "(3, 32, 48)" in caught.value.evidence
    assert "(3, 32, 64)" in caught.value.evidence
    assert not (tmp_path / "model.onnx").exists()


def test_failure_keeps_what_was_there(tmp_path: Path) -> None:
    """An export that fails leaves an older file as it was, and no other file."""
    output = tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    output.write_bytes(b"old")
    file = KerasFile()
    file.heads(file.layer("odd", "Lambda", {}, [file.input]), 3)
    with pytest.raises(InputError, match="Lambda"):
        export_onnx(file.write(tmp_path / "model.hdf5"), output=output)
    assert output.read_bytes() == b"old"
    assert list(output.parent.iterdir()) == [output]


def test_the_file_is_readable_by_others(tmp_path: Path) -> None:
    """The artifact has the mode any new file has, so that a server under another user can read it."""
    (tmp_path / "plain").touch()
    artifact = export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    assert stat.S_IMODE(artifact.path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A place that is no folder is a usage error."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "file" / "model.onnx")


def _wrong_kernel(file: KerasFile) -> None:
    file.weights["conv1"][0] = ("conv1/kernel:0", np.zeros((3, 3, 3, 5), np.float32))


def _no_bias(file: KerasFile) -> None:
    del file.weights["conv1"][1]


def _group_missing(file: KerasFile) -> None:
    del file.weights["conv1"]


def _wrong_config(file: KerasFile) -> None:
    file.layers[1]["config"]["strides"] = "fast"


def _huge_stride(file: KerasFile) -> None:
    file.layers[1]["config"]["strides"] = [0, 1 << 40]


def _unknown_activation(file: KerasFile) -> None:
    file.layers[1]["config"]["activation"] = "mish"


def _channels_last(file: KerasFile) -> None:
    file.layers[1]["config"]["data_format"] = "channels_last"


def _window_too_large(file: KerasFile) -> None:
    file.layers[1]["config"].update(padding="valid", dilation_rate=[60, 60])


def _padding_the_stride_hides(file: KerasFile) -> None:
    """A grid of 3×3, from an input padded to 512 GiB."""
    file.layers[1]["config"].update(dilation_rate=[65_536, 65_536], strides=[65_536, 65_536])


@pytest.mark.parametrize(
    "damage",
    [
        _wrong_kernel,
        _no_bias,
        _group_missing,
        _wrong_config,
        _huge_stride,
        _unknown_activation,
        _channels_last,
        _window_too_large,
        _padding_the_stride_hides,
    ],
)
def test_parts_that_do_not_fit_name_the_layer(tmp_path: Path, damage: Callable[[KerasFile], None]) -> None:
    """Weights or settings that do not fit are an InputError naming file and layer."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4), 4)
    damage(file)
    source = file.write(tmp_path / "model.hdf5")
    with pytest.raises(InputError, match="layer conv1") as caught:
        export_onnx(source, output=tmp_path / "model.onnx")
    assert str(source) in caught.value.subject


def test_models_that_are_no_detector(tmp_path: Path) -> None:
    """Outputs under other names, or that do not belong together, are refused."""
    file = KerasFile()
    file.conv("output_bbox", file.input, 3, 7, kernel=(1, 1))
    file.conv("output_cov", file.input, 3, 2, kernel=(1, 1), activation="sigmoid")
    with pytest.raises(InputError, match="do not belong together"):
        export_onnx(file.write(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    text = KerasFile()
    text.heads(text.input, 3)
    config = text.model_config()
    config["config"]["output_layers"] = [["output_bbox", 0, 0]]
    text.model_config = lambda: config  # type: ignore[method-assign]
    with pytest.raises(InputError, match="no output output_cov"):
        export_onnx(text.write(tmp_path / "other.hdf5"), output=tmp_path / "model.onnx")


def test_quantization_aware_models_export_as_float(tmp_path: Path) -> None:
    """QDQ layers are left out, ReLU6 stays a Clip, and the outputs keep their names."""
    file = KerasFile()
    x = file.layer("input_1_qdq", "QDQ", {"bitwidth": 8}, [file.input], [("scaling_factor", np.ones(()))])
    x = file.conv("conv1", x, 3, 4, class_name="QuantizedConv2D")
    x = file.layer("re_lu_1", "ReLU", {"max_value": 6.0}, [x])
    x = file.layer("re_lu_1_qdq", "QDQ", {"bitwidth": 8}, [x], [("scaling_factor", np.ones(()))])
    file.heads(x, 4)
    artifact = export_onnx(file.write(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    model = onnx.load(str(artifact.path))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Clip", "Conv", "Conv", "Sigmoid"]
    limits = [x for x in model.graph.initializer if "clip" in x.name]
    assert [list(x.dims) for x in limits] == [[], []]  # ONNX's Clip takes scalars only
    assert "re_lu_1/Relu6:0" in {name for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("suffix", [".tlt", ".etlt"])
def test_encrypted_models_get_the_exact_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Without NVIDIA's launcher the error has the command of its container, with the key only as a variable."""
    monkeypatch.setenv("PATH", str(tmp_path))
    source = tmp_path / f"resnet18_detector{suffix}"
    source.write_bytes(b"\x00" * 64)
    spec = read_spec(_spec(tmp_path / "spec.txt"))
    with pytest.raises(ToolError) as caught:
        export_onnx(source, output=tmp_path / "model.onnx", spec=spec)
    assert caught.value.exit_code == 4
    assert "detectnet_v2 export -m /model/resnet18_detector.tlt" in caught.value.hint
    assert '-k "$KEY"' in caught.value.hint
    assert "--onnx_route tf2onnx" in caught.value.hint
    assert "-e /spec/spec.txt" in caught.value.hint
    assert "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5" in caught.value.hint


def test_other_files(tmp_path: Path) -> None:
    """A missing file and a file of another kind are InputErrors."""
    with pytest.raises(InputError, match="does not exist"):
        export_onnx(tmp_path / "none.hdf5", output=tmp_path)
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="neither a Keras HDF5 file nor"):
        export_onnx(tmp_path / "model.pth", output=tmp_path)
