"""A source that float32 cannot carry is bad input; parity is not blamed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from keras_files import tiny_resnet
from onnx import numpy_helper

from tao2serve.errors import InputError, ParityError
from tao2serve.export.computable import check_computable
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.parity import prove_parity


def _with_weights(path: Path, layer: str, value: float) -> Path:
    tiny_resnet(path)
    with h5py.File(path, "r+") as file:
        file[f"model_weights/{layer}/{layer}/kernel:0"][0] = value
    return path


@pytest.mark.parametrize(("value", "fact"), [(3e38, "not finite"), (1e12, "too large for float32")])
def test_weights_out_of_range(tmp_path: Path, value: float, fact: str) -> None:
    """Weights of 3e38 overflow, those of 1e12 drown the others in rounding: InputError, naming a layer."""
    source = _with_weights(tmp_path / "model.hdf5", "block_1a_conv_1", value)
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    with pytest.raises(InputError, match=fact) as caught:
        prove_parity(artifact, source)
    assert "layer " in caught.value.subject


def test_a_real_difference_stays_a_parity_error(tmp_path: Path) -> None:
    """Where the source computes soundly and the artifact differs, the artifact is at fault."""
    source = tiny_resnet(tmp_path / "model.hdf5")
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    check_computable(source, sample_images(artifact.signature), tolerance=1e-3)
    model = onnx.load(str(artifact.path))
    bias = next(item for item in model.graph.initializer if item.name == "output_bbox/bias:0")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), name=bias.name))
    onnx.save(model, str(artifact.path))
    with pytest.raises(ParityError, match="does not give the numbers"):
        prove_parity(artifact, source)


def test_a_file_served_as_it_is_must_run(tmp_path: Path) -> None:
    """An accepted ONNX file is run once: numbers that are not finite, or a graph that fails, are InputErrors."""
    artifact = export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    assert prove_parity(artifact, artifact.path) == "the file is served as it is"
    model = onnx.load(str(artifact.path))
    kernel = next(item for item in model.graph.initializer if item.name == "conv1/kernel:0")
    kernel.CopyFrom(numpy_helper.from_array(np.full(tuple(kernel.dims), 3e38, np.float32), name=kernel.name))
    onnx.save(model, str(artifact.path))
    with pytest.raises(InputError, match="not finite"):
        prove_parity(artifact, artifact.path)
