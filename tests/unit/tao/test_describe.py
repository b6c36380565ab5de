"""Template, depth and pruning are told from the layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from keras_files import KerasFile, tiny_resnet
from templates import TEMPLATES, blank, in_memory, quantized

from tao2serve.export.graph.layers import LAYER_WRITERS
from tao2serve.tao.describe import KNOWN_CLASSES, describe
from tao2serve.tao.hdf5 import read_keras_hdf5

_WHOLE = ("mobilenet", "efficientnet")  # their underscore is part of the name
_SHORTCUTS = ("resnet18_shortcuts", "resnet34_shortcuts", "resnet50_shortcuts", "resnet50_pooling")


def test_reference_models(golden: Path) -> None:
    """The reference models are recognised, and only the pruned one is called pruned."""
    found = {x.stem: describe(read_keras_hdf5(x)) for x in (golden / "models").glob("*.hdf5")}
    resnet = found["resnet18_pruned"]
    assert (resnet.template, resnet.num_layers, resnet.pruned) == ("resnet", 18, True)
    assert (found["mobilenet_v2"].template, found["mobilenet_v2"].pruned) == ("mobilenet_v2", False)
    assert (found["squeezenet"].template, found["squeezenet"].pruned) == ("squeezenet", False)
    assert not resnet.quantization_aware
    assert resnet.parameter_count > 10_000


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_at_full_width(name: str) -> None:
    """Template, depth, settings and pruning are told for each template, and after quantization-aware training."""
    family, _, variant = name.partition("_")
    arch, depth = re.fullmatch(r"(resnet|vgg|darknet|\w+)(\d\d+)?", name if family in _WHOLE else family).groups()
    for pruned in (False, True):
        file = blank(name, pruned=pruned)
        for model in (in_memory(file), in_memory(quantized(file))):
            found = describe(model)
            assert (found.template, found.num_layers) == (arch, int(depth) if depth else None)
            assert found.pruned == pruned
            assert found.batch_norm == (name != "squeezenet")
            has_setting = arch in ("resnet", "vgg")
            assert found.use_pooling == ((variant == "pooling") if has_setting else None)
            assert found.unusual == ()
            if arch == "resnet":
                assert found.all_projections == (name not in _SHORTCUTS)


def test_pruning_to_a_usual_width(tmp_path: Path) -> None:
    """A channel count that another layer of the template has is still not this layer's own."""
    file = KerasFile()
    x = file.layer("conv1_lrelu", "LeakyReLU", {"alpha": 0.1}, [file.conv("conv1", file.input, 3, 32)])
    file.heads(file.conv("b1_conv1", x, 32, 32), 32)
    assert describe(read_keras_hdf5(file.write(tmp_path / "model.hdf5"))).pruned


def test_what_is_unusual_is_named(tmp_path: Path) -> None:
    """Layers and names that no template has are listed for a person."""
    file = KerasFile()
    x = file.conv("my_conv", file.input, 3, 4)
    file.heads(file.layer("norm", "Lambda", {}, [x]), 4)
    unusual = describe(read_keras_hdf5(file.write(tmp_path / "model.hdf5"))).unusual
    assert unusual == ("layer norm is a Lambda", "convolutions that vgg does not have: my_conv")


def test_known_classes_are_those_that_export() -> None:
    """What `describe` does not call unusual can be exported, and the other way round."""
    assert KNOWN_CLASSES - {"InputLayer"} == set(LAYER_WRITERS)


def test_quantization_aware(tmp_path: Path) -> None:
    """QDQ layers mark a quantization-aware model."""
    assert not describe(read_keras_hdf5(tiny_resnet(tmp_path / "plain.hdf5"))).quantization_aware
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 64, class_name="QuantizedConv2D")
    file.heads(file.layer("conv1_qdq", "QDQ", {}, [x]), 64)
    description = describe(read_keras_hdf5(file.write(tmp_path / "qat.hdf5")))
    assert description.quantization_aware
    assert description.template == "vgg"
