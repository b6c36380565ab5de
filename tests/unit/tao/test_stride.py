"""Which strides a spec states, and which grids a stride can give."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from tao2serve.tao.clustering_file import read_clustering, with_clustering
from tao2serve.tao.spec import read_spec
from tao2serve.tao.stride import fits_stride, stated_strides

TRAINING = """
augmentation_config {{ preprocessing {{
  output_image_width: 960 output_image_height: 544 output_image_channel: 3 }} }}
model_config {{ {model} }}
cost_function_config {{ target_classes {{ name: "person" }} }}
"""


def _strides(path: Path, model: str) -> list[tuple[int, ...]]:
    path.write_text(TRAINING.format(model=model))
    return [stated.strides for stated in stated_strides(read_spec(path))]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ('arch: "resnet" num_layers: 18', [(16,)]),
        ('arch: "resnet" num_layers: 50 use_pooling: true', [(224,)]),
        ('arch: "vgg" num_layers: 16', [(16,)]),
        ('arch: "vgg" num_layers: 19 use_pooling: true', [(16,)]),
        ('arch: "googlenet"', [(16,)]),
        ('arch: "mobilenet_v1"', [(16,)]),
        ('arch: "mobilenet_v2"', [(16,)]),
        ('arch: "squeezenet"', [(16,)]),
        ('arch: "darknet" num_layers: 53', [(16, 32)]),
        ('arch: "efficientnet_b0"', [(16, 32)]),
        ('arch: "resnet" load_graph: true', []),
        ('arch: "helnet"', []),
        ("num_layers: 18", []),
    ],
)
def test_what_a_training_spec_implies(tmp_path: Path, model: str, expected: list[tuple[int, ...]]) -> None:
    """Each template has its stride; a loaded graph, an unknown template and none imply nothing."""
    assert _strides(tmp_path / "spec.txt", model) == expected


def test_stated_outright(tmp_path: Path) -> None:
    """The strides of an inference spec and of a clustering file count, and 0 is not said."""
    spec, clustering = tmp_path / "spec.txt", tmp_path / "clustering.txt"
    text = 'inferencer_config {{ target_classes: "a" image_width: 32 image_height: 32 image_channels: 3 {} }}'
    spec.write_text(text.format(""))
    assert stated_strides(read_spec(spec)) == ()
    spec.write_text(text.format("stride: 8"))
    clustering.write_text('stride: 32 classwise_clustering_config { key: "a" value { } }')
    laid = with_clustering(read_spec(spec), read_clustering(clustering))
    first, second = stated_strides(laid)
    assert str(first) == f"inferencer_config.stride in {spec}: 8"
    assert str(second) == f"stride in {clustering}: 32"


def test_no_reference_spec_contradicts_a_model_of_its_own(golden: Path) -> None:
    """All of NVIDIA's specs are met by the 16 their notebooks' models have."""
    read = 0
    for path in sorted((golden / "specs").glob("*/*.txt")):
        if "tfrecords" in path.name:
            continue
        read += 1
        assert all(16 in stated.strides for stated in stated_strides(read_spec(path))), path
    assert read > 10


def _halved(pixels: int, roundings: tuple[bool, ...]) -> int:
    for upward in roundings:
        pixels = (pixels + upward) // 2
    return pixels


def test_odd_sizes_end_between_floor_and_ceiling() -> None:
    """Whatever each of four halvings rounds to, the grid fits a stride of 16 and, from 48 pixels, of nothing double."""
    for pixels, roundings in product(range(1, 200), product((False, True), repeat=4)):
        cells = _halved(pixels, roundings)
        assert fits_stride(pixels, cells, 16)
        if pixels >= 48:
            assert not fits_stride(pixels, cells, 32)
            assert not fits_stride(pixels, cells, 8)
    assert not fits_stride(100, 5, 0)
