"""Template, depth and pruning are told from the layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from keras_files import KerasFile, tiny_resnet

from tao2serve.tao.describe import describe
from tao2serve.tao.hdf5 import read_keras_hdf5


def test_reference_models(golden: Path) -> None:
    """The reference models are recognised, and only the pruned one is called pruned."""
    found = {x.stem: describe(read_keras_hdf5(x)) for x in (golden / "models").glob("*.hdf5")}
    resnet = found["resnet18_pruned"]
    assert (resnet.template, resnet.num_layers, resnet.pruned) == ("resnet", 18, True)
    assert (found["mobilenet_v2"].template, found["mobilenet_v2"].pruned) == ("mobilenet_v2", False)
    assert (found["squeezenet"].template, found["squeezenet"].pruned) == ("squeezenet", False)
    assert not resnet.quantization_aware
    assert resnet.parameter_count > 10_000


@pytest.mark.parametrize(
    ("width", "blocks", "pruned", "depth"), [(64, 4, False, 10), (64, 8, False, 18), (56, 4, True, 10)]
)
def test_resnet_depth_and_pruning(tmp_path: Path, width: int, blocks: int, pruned: bool, depth: int) -> None:
    """Depth is the number of residual blocks; one channel count that is not the stage's means pruned."""
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, width)
    for index in range(blocks):
        y = file.conv(f"block_1{chr(ord('a') + index)}_conv_1", x, width, width, kernel=(1, 1))
        x = file.layer(f"add_{index}", "Add", {}, [x, y])
    file.heads(x, width)
    description = describe(read_keras_hdf5(file.write(tmp_path / "model.hdf5")))
    assert (description.template, description.num_layers, description.pruned) == ("resnet", depth, pruned)


def test_quantization_aware(tmp_path: Path) -> None:
    """QDQ layers mark a quantization-aware model."""
    assert not describe(read_keras_hdf5(tiny_resnet(tmp_path / "plain.hdf5"))).quantization_aware
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 64, class_name="QuantizedConv2D")
    file.heads(file.layer("conv1_qdq", "QDQ", {}, [x]), 64)
    description = describe(read_keras_hdf5(file.write(tmp_path / "qat.hdf5")))
    assert description.quantization_aware
    assert description.template == "vgg"
