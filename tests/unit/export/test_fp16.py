"""float16 inside, float32 outside, and never a silent infinity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from onnx import TensorProto, helper
from precision_files import PARAMS, accepted, detector, exported, hand_made, model_of, outputs, write_pictures

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.precision.fp16 import to_half
from tao2serve.export.precision.overflow import overflows_on
from tao2serve.export.precision.write import to_precision


@pytest.mark.parametrize("fold", [True, False])
def test_weights_and_activations_are_half_inputs_and_outputs_are_not(tmp_path: Path, fold: bool) -> None:
    """The signature is that of the source, every weight is float16, and the numbers are close."""
    artifact = detector(tmp_path)
    half = to_precision(artifact, precision="fp16", output=tmp_path / "half.onnx", fold=fold)
    model = model_of(half)
    onnx.checker.check_model(model, full_check=True)
    assert (half.precision, half.signature) == ("fp16", artifact.signature)
    assert accept_onnx(half.path).precision == "fp16"
    assert {x.data_type for x in model.graph.initializer} == {TensorProto.FLOAT16}
    assert list(model.graph.input) == list(model_of(artifact).graph.input)
    assert list(model.graph.output) == list(model_of(artifact).graph.output)
    assert half.path.stat().st_size < 0.7 * artifact.path.stat().st_size
    images = sample_images(artifact.signature, count=3)
    for ours, theirs in zip(outputs(model_of(artifact), images), outputs(model, images), strict=True):
        assert 0 < np.abs(ours - theirs).max() < 5e-3


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    """A weight that would become another number is InputError, not a clipped value."""
    nodes = [helper.make_node("Conv", ["input_1", "stem/kernel"], ["features"])]
    artifact = accepted(hand_made(nodes, {"stem/kernel": np.full((4, 3, 1, 1), 7e4, np.float32)}), tmp_path)
    with pytest.raises(InputError, match="weights that float16 cannot hold") as raised:
        to_precision(artifact, precision="fp16", output=tmp_path / "half.onnx")
    assert "stem/kernel reaches 7e+04" in raised.value.evidence
    assert not (tmp_path / "half.onnx").exists()


def test_an_activation_beyond_float16_is_named(tmp_path: Path) -> None:
    """Weights that fit but drive a tensor over the end of float16 are InputError too."""
    nodes = [helper.make_node("Conv", ["input_1", "stem/kernel"], ["features"])]
    artifact = accepted(hand_made(nodes, {"stem/kernel": np.full((4, 3, 1, 1), 6e4, np.float32)}), tmp_path)
    with pytest.raises(InputError, match="values that float16 cannot hold") as raised:
        to_precision(artifact, precision="fp16", output=tmp_path / "half.onnx")
    assert "features reaches" in raised.value.evidence


def test_an_overflow_that_a_cpu_hides_is_found(tmp_path: Path) -> None:
    """On the pictures at hand, also where the CPU computes in float32 and its results show nothing."""
    file = KerasFile()
    x = file.conv("stem", file.input, 3, 4, kernel=(1, 1), use_bias=False)
    file.weights["stem"] = [("stem/kernel:0", np.full((1, 1, 3, 4), 6e4, np.float32))]
    x = file.layer("back", "ReLU", {"max_value": 1.0}, [x])
    file.heads(x, 4)
    artifact = exported(file, tmp_path)
    (finding,) = overflows_on(artifact, PARAMS, write_pictures(tmp_path / "images", 2))
    assert finding.startswith("stem/convolution:0 reaches ")
    images = sample_images(artifact.signature)
    half = to_half(model_of(artifact), subject="test")
    for ours, theirs in zip(outputs(model_of(artifact), images), outputs(half, images), strict=True):
        assert np.abs(ours - theirs).max() < 1e-2  # the figures alone would hide it


def test_a_limit_that_means_none_is_no_obstacle(tmp_path: Path) -> None:
    """Clip with the largest float32 as its end, as some exporters write Relu, is converted."""
    nodes = [
        helper.make_node("Conv", ["input_1", "w"], ["c"]),
        helper.make_node("Clip", ["c", "low", "high"], ["features"]),
    ]
    weights = {"w": np.ones((4, 3, 1, 1), np.float32), "low": np.float32(0), "high": np.finfo(np.float32).max}
    artifact = accepted(hand_made(nodes, weights), tmp_path)
    half = to_precision(artifact, precision="fp16", output=tmp_path / "half.onnx")
    images = sample_images(artifact.signature)
    for ours, theirs in zip(outputs(model_of(artifact), images), outputs(model_of(half), images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-2)
