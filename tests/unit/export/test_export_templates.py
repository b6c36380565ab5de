"""Every DetectNet_v2 template of TAO, in every form it comes in, exports exactly.

The templates are narrow here, an eighth of their width, and otherwise what TAO builds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from keras_files import KerasFile
from templates import TEMPLATES, images, in_memory, quantized, template, write_nested

from tao2serve.export.convert import export_onnx
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.inference import open_session
from tao2serve.export.reference import forward
from tao2serve.tao.hdf5 import read_keras_hdf5
from tao2serve.tao.keras import KerasModel

TOLERANCE = 2e-4
OUTPUTS = ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]

# How a template makes an image smaller, step by step: rounding up, rounding down, or by sevenths.
_STEPS = {
    "vgg16_pooling": "dddd",
    "vgg19_pooling": "dddd",
    "googlenet": "uddd",
    "darknet19": "ddddd",
    "darknet53": "uuuuu",
    "efficientnet_b0": "uuuuu",
    "resnet18_pooling": "uuuuu7",
    "resnet50_pooling": "uuuuu7",
}
_SMALLER: dict[str, Callable[[int], int]] = {
    "u": lambda size: (size + 1) // 2,
    "d": lambda size: size // 2,
    "7": lambda size: (size + 6) // 7,
}

# The TensorFlow operations each layer ends in or passes through, as TF 1.15 with Keras 2.2.4 names them (docs/tao.md).
_OPERATIONS = {
    "Conv2D": {"Pad", "convolution", "BiasAdd", "Sigmoid", "mul"},
    "DepthwiseConv2D": {"depthwise", "BiasAdd"},
    "BatchNormalization": {"batchnorm/mul_1", "batchnorm/add_1"},
    "Activation": {"Relu", "Sigmoid", "mul"},
    "ReLU": {"Relu", "Relu6"},
    "LeakyReLU": {"LeakyRelu"},
    "MaxPooling2D": {"Pad", "MaxPool"},
    "AveragePooling2D": {"Pad", "AvgPool"},
    "GlobalAveragePooling2D": {"Mean"},
    "ZeroPadding2D": {"Pad"},
    "Reshape": {"Reshape"},
    "Add": {"add"},
    "Multiply": {"mul"},
    "Concatenate": {"concat"},
}

narrow = partial(template, width=0.125)


def _grid(name: str, size: int) -> int:
    for step in _STEPS.get(name, "uuuu"):
        size = _SMALLER[step](size)
    return size


def _differences(model: KerasModel, *, batch: int = 2) -> tuple[float, tuple[int, ...]]:
    """Return the largest difference between onnxruntime and the numpy reading, and coverage's shape."""
    channels, height, width = (size or 0 for size in model.layers[0].integers("batch_input_shape")[1:])
    seen = images((channels, height, width), count=batch, seed=2)
    session = open_session(build_onnx(model).SerializeToString())
    coverage, bbox = session.run(OUTPUTS, {"input_1:0": seen})
    wanted = forward(model, seen)
    assert coverage.shape == wanted.coverage.shape
    assert bbox.shape == wanted.bbox.shape
    worst = max(np.abs(coverage - wanted.coverage).max(), np.abs(bbox - wanted.bbox).max())
    return float(worst), coverage.shape


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_exact(name: str) -> None:
    """An odd image size, three images at once: the numbers of the reading, on the grid that arithmetic gives."""
    model = in_memory(narrow(name, input_chw=(3, 97, 165), classes=3))
    worst, shape = _differences(model, batch=3)
    assert worst <= TOLERANCE
    assert shape == (3, 3, _grid(name, 97), _grid(name, 165))


@pytest.mark.parametrize("name", TEMPLATES)
def test_pruned_grayscale_templates_are_exact(name: str) -> None:
    """Irregular channel counts, one input channel, an even size, one image."""
    file = narrow(name, input_chw=(1, 96, 128), pruned=True)
    counts = {entry["config"]["filters"] for entry in file.layers if entry["class_name"] == "Conv2D"}
    assert any(count % 2 for count in counts)
    worst, shape = _differences(in_memory(file), batch=1)
    assert worst <= TOLERANCE
    assert shape == (1, 2, _grid(name, 96), _grid(name, 128))


@pytest.mark.parametrize("name", ["resnet18", "resnet50_shortcuts", "resnet18_pooling", "vgg16", "vgg19_pooling",
                                  "mobilenet_v1", "mobilenet_v2", "darknet19", "darknet53"])  # fmt: skip
def test_templates_without_batch_norm_are_exact(name: str) -> None:
    """`use_batch_norm: false` leaves convolutions with or without a bias."""
    file = narrow(name, input_chw=(3, 81, 96), batch_norm=False)
    assert not any(entry["class_name"] == "BatchNormalization" for entry in file.layers)
    worst, _ = _differences(in_memory(file))
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v2", "efficientnet_b0"])
def test_frozen_batch_norm_changes_nothing(name: str) -> None:
    """TAO's `freeze_bn` leaves a call argument in the graph; the ONNX graph is the same."""
    plain, frozen = narrow(name, input_chw=(3, 48, 64)), narrow(name, input_chw=(3, 48, 64), frozen=True)
    assert "'training': False" in str(frozen.layers)
    assert build_onnx(in_memory(frozen)).graph == build_onnx(in_memory(plain)).graph


@pytest.mark.parametrize("name", TEMPLATES)
def test_quantization_aware_templates_export_as_float(name: str) -> None:
    """QDQ goes, Quantized* gives its raw kernels, relu-likes stay limited to 6: numbers, and no name lost."""
    file = quantized(narrow(name, input_chw=(3, 65, 96)))
    model = in_memory(file)
    assert model.quantization_aware
    worst, _ = _differences(model)
    assert worst <= TOLERANCE
    made = {output for node in build_onnx(model).graph.node for output in node.output}
    layers = {output.partition("/")[0] for output in made}
    assert layers == {layer.name for layer in model.layers} - {
        layer.name for layer in model.layers if layer.class_name in ("InputLayer", "QDQ", "Dropout")
    }
    assert not any("Quantize" in node.op_type for node in build_onnx(model).graph.node)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("change", [KerasFile.copy, quantized], ids=["float", "quantized"])
def test_a_nested_template_is_the_flat_one(tmp_path: Path, name: str, change: Callable[[KerasFile], KerasFile]) -> None:
    """A model that is the one layer of another gives the same nodes, names and weights."""
    file = change(narrow(name, input_chw=(3, 32, 48)))
    flat = build_onnx(in_memory(file)).graph
    nested = build_onnx(read_keras_hdf5(write_nested(tmp_path / "nested.hdf5", file))).graph
    assert nested.node == flat.node
    assert nested.initializer == flat.initializer
    assert list(nested.input) == list(flat.input)
    assert list(nested.output) == list(flat.output)


def test_a_nested_model_within_a_nested_model(tmp_path: Path) -> None:
    """Weights are shared out level by level."""
    file = quantized(narrow("resnet10", input_chw=(3, 32, 48)))
    flat = build_onnx(in_memory(file)).graph
    twice = build_onnx(read_keras_hdf5(write_nested(tmp_path / "twice.hdf5", file, levels=2))).graph
    assert twice.node == flat.node
    assert twice.initializer == flat.initializer


@pytest.mark.parametrize("name", TEMPLATES)
def test_tensors_have_tensorflows_names(name: str) -> None:
    """Every tensor is called `<layer>/<operation>:0`, and each layer's operations are the ones TF 1.15 makes."""
    file = narrow(name, input_chw=(3, 32, 48))
    classes = {entry["name"]: entry["class_name"] for entry in file.layers}
    model = build_onnx(in_memory(file))
    for output in (output for node in model.graph.node for output in node.output):
        layer, _, operation = output.removesuffix(":0").partition("/")
        assert operation in _OPERATIONS[classes[layer]], output


def test_the_graph_is_strict_and_its_opset_stated_once(tmp_path: Path) -> None:
    """ONNX's checker and strict shape inference accept each kind of layer; one opset, no other domain."""
    for name in ("efficientnet_b0", "resnet18_pooling", "googlenet", "darknet53"):
        source = narrow(name, input_chw=(3, 97, 165)).write(tmp_path / f"{name}.hdf5")
        model = onnx.load(export_onnx(source, output=tmp_path).path)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 13)]
        assert {node.domain for node in model.graph.node} == {""}
