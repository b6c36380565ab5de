"""Batch norm goes into the convolution before it, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from onnx import ModelProto, helper
from precision_files import detector, exported, hand_made, model_of, outputs

from tao2serve.export.execution import sample_images
from tao2serve.export.precision.fold import fold_batch_norm
from tao2serve.export.precision.nodes import properties

RANDOM = np.random.default_rng(3)
KERNEL = RANDOM.normal(size=(4, 3, 1, 1)).astype(np.float32)
IMAGES = RANDOM.random((2, 3, 16, 24), dtype=np.float32)


def _kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _vector(low: float = 0.5) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RANDOM.uniform(low, 1.5, 4).astype(np.float32)


def test_a_network_gives_the_same_numbers_with_fewer_nodes(tmp_path: Path) -> None:
    """Every batch norm of a residual network is folded; outputs agree to float noise; the model given is untouched."""
    artifact = detector(tmp_path)
    model = model_of(artifact)
    before = model.SerializeToString(deterministic=True)
    folded = fold_batch_norm(model)
    onnx.checker.check_model(folded, full_check=True)
    assert "Mul" not in _kinds(folded)
    assert _kinds(folded).count("Add") == 1  # the residual's
    images = sample_images(artifact.signature)
    for ours, theirs in zip(outputs(model, images), outputs(folded, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert model.SerializeToString(deterministic=True) == before


def test_the_last_folded_name_survives_and_the_rest_is_gone(tmp_path: Path) -> None:
    """The Conv's result is `…/batchnorm/add_1:0`, which calibration caches name; metadata says that it was folded."""
    model = model_of(detector(tmp_path))
    folded = fold_batch_norm(model)
    made = {name: node.op_type for node in folded.graph.node for name in node.output}
    assert made["bn_conv1/batchnorm/add_1:0"] == "Conv"
    assert not {"conv1/BiasAdd:0", "bn_conv1/batchnorm/mul_1:0"} & set(made)
    stored = {item.name for item in folded.graph.initializer}
    assert not {"conv1/kernel:0", "conv1/bias:0", "bn_conv1/batchnorm/mul:0"} & stored
    assert not {"conv1/BiasAdd:0"} & {item.name for item in folded.graph.value_info}
    assert properties(folded) == properties(model) | {"tao2serve.batch_norm": "folded"}
    assert list(folded.graph.output) == list(model.graph.output)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """Folding is a function of the model, and folding twice changes nothing more."""
    model = model_of(detector(tmp_path))
    once, again = fold_batch_norm(model), fold_batch_norm(model)
    assert once.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert fold_batch_norm(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(tmp_path: Path, multiplier: int) -> None:
    """A grouped convolution takes its batch norm in channel by channel, with a depth multiplier too."""
    file = KerasFile()
    x = file.depthwise("dw", file.input, 3, padding="same", multiplier=multiplier)
    x = file.batch_norm("dw_bn", x, 3 * multiplier)
    file.heads(x, 3 * multiplier)
    artifact = exported(file, tmp_path)
    model = model_of(artifact)
    folded = fold_batch_norm(model)
    assert _kinds(folded) == ["Conv", "Conv", "Conv", "Sigmoid"]
    images = sample_images(artifact.signature)
    for ours, theirs in zip(outputs(model, images), outputs(folded, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("epsilon", [None, 1e-3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_batch_normalization_node(epsilon: float | None, with_bias: bool) -> None:
    """keras2onnx's form is folded as well, with the node's epsilon or ONNX's default."""
    weights = {
        "w": KERNEL,
        "b": _vector(),
        "gamma": _vector(),
        "beta": _vector(-1),
        "mean": _vector(-1),
        "var": _vector(),
    }
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    nodes = [
        helper.make_node("Conv", ["input_1", "w", *(["b"] if with_bias else [])], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["features"], **attributes),
    ]
    model = hand_made(nodes, weights)
    folded = fold_batch_norm(model)
    assert _kinds(folded) == ["Conv", "Conv", "Sigmoid", "Conv"]
    for ours, theirs in zip(outputs(model, IMAGES), outputs(folded, IMAGES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_constants_in_nodes_and_in_any_shape() -> None:
    """Constant nodes, scalars, either operand order and more steps than two make no difference."""
    nodes = [
        helper.make_node("Conv", ["input_1", "w"], ["c"]),
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", 1, [4, 1, 1], [0.5, 1, 2, -1])),
        helper.make_node("Mul", ["s", "c"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["a"]),
        helper.make_node("Mul", ["a", "half"], ["features"]),
    ]
    model = hand_made(nodes, {"w": KERNEL, "one": np.float32([1.0]), "half": np.array(0.5, np.float32)})
    folded = fold_batch_norm(model)
    assert _kinds(folded) == ["Conv", "Conv", "Sigmoid", "Conv"]
    for ours, theirs in zip(outputs(model, IMAGES), outputs(folded, IMAGES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


CONV = helper.make_node("Conv", ["input_1", "w"], ["c"])
ALONE = {
    "two consumers": [helper.make_node("Mul", ["c", "s"], ["m"]), helper.make_node("Add", ["m", "c"], ["features"])],
    "an output of the graph": [helper.make_node("Mul", ["c", "s"], ["features"])],
    "no convolution before it": [
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Mul", ["r", "s"], ["features"]),
    ],
    "not per channel": [helper.make_node("Mul", ["c", "d"], ["features"])],
    "itself": [helper.make_node("Mul", ["c", "c"], ["features"])],
    "beyond float32": [helper.make_node("Mul", ["c", "h"], ["m"]), helper.make_node("Mul", ["m", "h"], ["features"])],
    "in training": [
        helper.make_node("BatchNormalization", ["c", "g", "g", "g", "g"], ["features", "a", "b"], training_mode=1)
    ],
}


@pytest.mark.parametrize("case", ALONE)
def test_what_cannot_be_folded_stays(case: str) -> None:
    """The model comes back unchanged where folding would change a number or lose a tensor."""
    weights = {"w": KERNEL, "s": _vector().reshape(1, 4, 1, 1), "g": _vector()}
    weights |= {"d": np.ones((1, 4, 16, 24), np.float32) / 3, "h": np.full((4, 1, 1), 3e38, np.float32)}
    others = ("c",) if case == "an output of the graph" else ()
    model = hand_made([CONV, *ALONE[case]], weights, others=others, opset=14)
    assert fold_batch_norm(model).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_a_circle_ends() -> None:
    """Steps that lead back to the convolution's own result, as in a damaged file, do not go on for ever."""
    nodes = [
        helper.make_node("Conv", ["input_1", "w"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["features"]),
        helper.make_node("Mul", ["d", "s"], ["c"]),
        helper.make_node("Mul", ["c2", "s"], ["d"]),
    ]
    model = hand_made(nodes, {"w": KERNEL, "s": np.float32([1.5])})
    model.graph.node[1].output[0] = "c2"  # the heads now take a tensor nobody makes
    assert _kinds(fold_batch_norm(model)).count("Conv") == 3
