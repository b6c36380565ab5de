"""What an experiment spec says of evaluation, and its stride against a model's."""

from __future__ import annotations

from pathlib import Path

import pytest
from keras_files import tiny_resnet

from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.export.evaluation import accuracy_settings
from tao2serve.export.signature import check_against_spec
from tao2serve.parity.accuracy import ClassSettings
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelSignature, Tensor

EVALUATION = """
augmentation_config { preprocessing {
  output_image_width: 960 output_image_height: 544 output_image_channel: 3 } }
dataset_config { target_class_mapping { key: "van" value: "car" } }
cost_function_config { target_classes { name: "car" } target_classes { name: "person" } }
evaluation_config {
  minimum_detection_ground_truth_overlap { key: "car" value: 0.7 }
  minimum_detection_ground_truth_overlap { key: "person" value: 0.5 }
  evaluation_box_config { key: "car" value { minimum_height: 4 maximum_height: 9999
    minimum_width: 5 maximum_width: 8888 } }
  evaluation_box_config { key: "person" value { maximum_height: 100 maximum_width: 50 } }
  average_precision_mode: INTEGRATE
}
"""
INFERENCE = 'inferencer_config {{ target_classes: "a" image_width: {} image_height: {} image_channels: 3 stride: {} }}'


def _file(folder: Path, text: str) -> Path:
    path = folder / "spec.txt"
    path.write_text(text)
    return path


def test_settings_are_those_of_the_spec(tmp_path: Path) -> None:
    """Overlaps, limits, mapping, size and mode arrive, classes in channel order, what is absent as proto3's 0."""
    settings = accuracy_settings(read_spec(_file(tmp_path, EVALUATION)))
    assert settings.network_size == (960, 544)
    assert settings.mode == "INTEGRATE"
    assert dict(settings.class_mapping) == {"van": "car"}
    assert settings.classes == (
        ClassSettings(
            name="car",
            minimum_overlap=0.7,
            minimum_height=4,
            maximum_height=9999,
            minimum_width=5,
            maximum_width=8888,
        ),
        ClassSettings(name="person", minimum_overlap=0.5, maximum_height=100, maximum_width=50),
    )


def test_every_training_spec_of_nvidias_gives_settings(golden: Path) -> None:
    """The tutorials' specs read as written: INTEGRATE, with an overlap for every class."""
    specs = [read_spec(path) for path in sorted((golden / "specs").glob("*/*train_resnet18_kitti*.txt"))]
    assert len(specs) > 4
    for spec in specs:
        settings = accuracy_settings(spec)
        assert settings.mode == "INTEGRATE", spec.path
        assert [entry.name for entry in settings.classes] == list(spec.classes)
        assert {entry.minimum_overlap for entry in settings.classes} <= {0.5, 0.6, 0.7}, spec.path


def test_a_spec_without_evaluation(tmp_path: Path) -> None:
    """Inference specs, which have no evaluation_config, give tao_deploy's: SAMPLE, IoU 0.5, all sizes, no mapping."""
    settings = accuracy_settings(read_spec(_file(tmp_path, INFERENCE.format(960, 544, 0))))
    assert (settings.mode, settings.classes, dict(settings.class_mapping)) == ("SAMPLE", (ClassSettings(name="a"),), {})


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ('overlap { key: "person"', 'overlap { key: "default"', "does not say how class person is evaluated"),
        ('box_config { key: "car"', 'box_config { key: "cars"', "does not say how class car is evaluated"),
        ("value: 0.5", "value: 50", "class person that is no IoU"),
        ("value: 0.5", "value: nan", "class person that is no IoU"),
        ("maximum_height: 100 ", "", "class person that no box is within"),
        ("minimum_width: 5", "minimum_width: 9000", "class car that no box is within"),
        ("INTEGRATE", "7", "unknown average_precision_mode"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, old: str, new: str, fact: str) -> None:
    """What TAO refuses, and what would make every AP 0, is an InputError that names the class."""
    assert old in EVALUATION
    with pytest.raises(InputError, match=fact):
        accuracy_settings(read_spec(_file(tmp_path, EVALUATION.replace(old, new, 1))))


def _signature(width: int, height: int, columns: int, rows: int) -> ModelSignature:
    return ModelSignature(
        input=Tensor(name="input_1:0", datatype="FP32", shape=(3, height, width)),
        coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(1, rows, columns)),
        bbox=Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(4, rows, columns)),
    )


def test_a_stride_that_contradicts_shows_both_sides(tmp_path: Path) -> None:
    """A spec's stride the model does not have is an error with the model's cells and the spec's number."""
    spec = read_spec(_file(tmp_path, INFERENCE.format(960, 544, 32)))
    with pytest.raises(InputError, match="does not belong") as caught:
        check_against_spec(_signature(960, 544, 60, 34), spec, subject="model.onnx")
    assert "the model has 60x34 cells for 960x544 pixels" in caught.value.evidence
    assert f"inferencer_config.stride in {spec.path}: 32" in caught.value.evidence


@pytest.mark.parametrize(
    ("width", "height", "columns", "rows", "stride"),
    [(960, 544, 60, 34, 16), (960, 544, 60, 34, 0), (100, 40, 7, 2, 16), (100, 40, 6, 3, 16), (960, 544, 5, 3, 224)],
)
def test_a_stride_that_fits(tmp_path: Path, width: int, height: int, columns: int, rows: int, stride: int) -> None:
    """Grids rounded up or down from an odd size fit, and a stride of 0 is not said."""
    spec = read_spec(_file(tmp_path, INFERENCE.format(width, height, stride)))
    check_against_spec(_signature(width, height, columns, rows), spec, subject="model.onnx")


def test_export_refuses_a_model_of_another_stride(tmp_path: Path) -> None:
    """A model of stride 4 is no TAO resnet, and nothing is written."""
    text = EVALUATION.replace("960", "48").replace("544", "32") + 'model_config { arch: "resnet" num_layers: 18 }'
    source = tiny_resnet(tmp_path / "model.hdf5")
    with pytest.raises(InputError, match="does not belong") as caught:
        export_onnx(source, output=tmp_path / "model.onnx", spec=read_spec(_file(tmp_path, text)))
    assert "12x8 cells for 48x32 pixels" in caught.value.evidence
    assert "resnet, as model_config" in caught.value.evidence
    assert not (tmp_path / "model.onnx").exists()
