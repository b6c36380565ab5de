"""The networks that benchmarks measure."""

from __future__ import annotations

from pathlib import Path

import networks
import pytest

from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.parity import check_parity
from tao2serve.tao.hdf5 import read_keras_hdf5


@pytest.mark.parametrize("write", [networks.write_resnet18, networks.write_vgg19])
def test_a_written_network_is_a_detector_our_export_accepts(write, tmp_path: Path) -> None:
    """What is measured is a stride-16 detector, numerically the same in ONNX, with grids that differ by cell."""
    source = write(tmp_path / "network.hdf5", height=48, width=80, classes=2)
    artifact = export_onnx(source, output=tmp_path / "network.onnx")
    assert artifact.signature.coverage.shape == (2, 3, 5)
    report = check_parity(artifact, source, images=sample_images(artifact.signature, count=1))
    assert report.passed
    assert report.worst.max_abs < 1e-4


def test_resnet18_has_the_layers_of_tao(tmp_path: Path) -> None:
    """The measured network is as large as TAO's: 17 convolutions, 8 projections, two heads."""
    model = read_keras_hdf5(networks.write_resnet18(tmp_path / "resnet18.hdf5", height=32, width=32))
    classes = [layer.class_name for layer in model.layers]
    assert (classes.count("Conv2D"), classes.count("Add"), classes.count("BatchNormalization")) == (27, 8, 25)
    parameters = sum(weight.values.size for layer in model.layers for weight in layer.weights)
    assert 11_000_000 < parameters < 12_500_000


def test_the_same_arguments_give_the_same_weights(tmp_path: Path) -> None:
    """Two machines measure the same network."""
    first, second = (
        read_keras_hdf5(networks.write_resnet18(tmp_path / name, height=32, width=32)) for name in ("a.hdf5", "b.hdf5")
    )
    for one, other in zip(first.layers, second.layers, strict=True):
        assert [w.values.tobytes() for w in one.weights] == [w.values.tobytes() for w in other.weights]
