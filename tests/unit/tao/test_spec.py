"""Experiment specs read as NVIDIA's own protobuf classes read them."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from tao2serve.errors import InputError
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.tao.spec_values import ClassHandling, Clustering, ExperimentSpec

TRAINING = """
augmentation_config { preprocessing {
  output_image_width: 960 output_image_height: 544 output_image_channel: 3 } }
model_config { arch: "resnet" num_layers: 18 objective_set { bbox { scale: 35.0 offset: 0.5 } cov { } } }
cost_function_config {
  target_classes { name: "person" class_weight: 1.0 }
  target_classes { name: "bag" } }
postprocessing_config {
  target_class_config { key: "person" value: { clustering_config { coverage_threshold: 0.00499999988824
    clustering_algorithm: HYBRID dbscan_eps: 0.15 dbscan_min_samples: 1 minimum_bounding_box_height: 20 } } }
  target_class_config { key: "default" value { clustering_config { clustering_algorithm: NMS
    nms_iou_threshold: 0.5 } } } }
"""


def _clustering(value: Clustering) -> dict[str, Any]:
    return {
        "clustering_algorithm": value.algorithm,
        "coverage_threshold": value.coverage_threshold,
        "minimum_bounding_box_height": value.minimum_bounding_box_height,
        "dbscan_eps": value.dbscan_eps,
        "dbscan_min_samples": value.dbscan_min_samples,
        "dbscan_confidence_threshold": value.dbscan_confidence_threshold,
        "nms_iou_threshold": value.nms_iou_threshold,
        "nms_confidence_threshold": value.nms_confidence_threshold,
    }


def _handling(value: ClassHandling) -> dict[str, Any]:
    return {
        "clustering": _clustering(value.clustering),
        "confidence_model": value.confidence_model,
        "output_map": value.output_map,
        "bbox_color": list(value.bbox_color),
    }


def _as_expected(spec: ExperimentSpec) -> dict[str, Any]:
    """Arrange a spec as the reference data's expected.json arranges it."""
    size = {"width": spec.input.width, "height": spec.input.height, "channels": spec.input.channels}
    common: dict[str, Any] = {"kind": spec.kind, "classes_in_order": list(spec.classes)}
    if spec.inference:
        inference = {key: getattr(spec.inference, key) for key in spec.inference.__slots__}
        classwise = {key: _handling(value) for key, value in spec.handling.items()}
        return common | inference | {"input": size, "classwise": classwise}
    assert spec.model
    assert spec.training
    model = {key: getattr(spec.model, key) for key in spec.model.__slots__ if key != "has_coverage"}
    clearml = spec.training.clearml
    return common | {
        "input": size
        | {
            "min": spec.input.minimum,
            "max": spec.input.maximum,
            "enable_auto_resize": spec.input.enable_auto_resize,
        },
        "model": model | {"freeze_blocks": list(spec.model.freeze_blocks)},
        "bbox": {"scale": spec.bbox_scale, "offset": spec.bbox_offset},
        "has_cov": spec.model.has_coverage,
        "enable_qat": spec.enable_qat,
        "batch_size_per_gpu": spec.training.batch_size_per_gpu,
        "num_epochs": spec.training.num_epochs,
        "clustering": {key: _clustering(value.clustering) for key, value in spec.handling.items()},
        "target_class_mapping": dict(spec.training.target_class_mapping),
        "clearml": {key: getattr(clearml, key) for key in clearml.__slots__} | {"tags": list(clearml.tags)}
        if clearml
        else None,
        "visualizer_enabled": spec.training.visualizer_enabled,
    }


def test_every_reference_spec_reads_as_nvidia_reads_it(golden: Path) -> None:
    """All fields NVIDIA's classes report come out equal, float32 rounding included."""
    expected = json.loads((golden / "specs" / "expected.json").read_text())["files"]
    read = 0
    for name, entry in expected.items():
        if "expected" in entry:
            assert _as_expected(read_spec(golden / "specs" / name)) == entry["expected"], name
            read += 1
    assert read > 10


def test_dataset_conversion_specs_are_refused_by_name(golden: Path) -> None:
    """A spec NVIDIA's own experiment classes do not parse is refused, saying what it is."""
    expected = json.loads((golden / "specs" / "expected.json").read_text())["files"]
    names = [name for name, entry in expected.items() if "not_parsed_by_nvidia_proto" in entry]
    assert names
    for name in names:
        with pytest.raises(InputError, match="dataset conversion spec") as caught:
            read_spec(golden / "specs" / name)
        assert caught.value.exit_code == 3
        assert "kitti_config" in caught.value.evidence


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "experiment_spec.txt"
    path.write_text(TRAINING)
    return path


def test_class_order_and_absent_fields(training: Path) -> None:
    """Classes keep the order of the cost function; what is absent reads as proto3's zero."""
    spec = read_spec(training)
    assert spec.classes == ("person", "bag")
    assert spec.arch == "resnet"
    assert not spec.enable_qat
    assert spec.clearml is None
    assert spec.handling["person"].clustering.coverage_threshold == 0.005
    assert spec.handling["person"].clustering.dbscan_confidence_threshold == 0


def test_params_fill_in_taos_defaults(training: Path) -> None:
    """The decoding settings carry TAO's defaults for what the spec leaves out, and `default` for a class."""
    params = to_params(read_spec(training))
    assert params["input"] == {"channels": 3, "height": 544, "width": 960}
    assert (params["bbox_scale"], params["bbox_offset"]) == (35.0, 0.5)
    person, bag = params["classes"]
    assert (person["name"], person["clustering"], person["confidence_model"]) == (
        "person",
        "hybrid",
        "aggregate_cov",
    )
    assert (person["nms_iou_threshold"], person["nms_confidence_threshold"]) == (0.3, 0.1)
    assert (bag["name"], bag["clustering"], bag["nms_iou_threshold"]) == ("bag", "nms", 0.5)
    json.dumps(params)


def test_params_of_every_reference_spec(golden: Path) -> None:
    """Every reference spec gives complete decoding settings."""
    for path in sorted((golden / "specs").glob("*/*_kitti*.txt")):
        if "tfrecords" not in path.name:
            params = to_params(read_spec(path))
            assert params["bbox_scale"] == 35.0
            assert [x["name"] for x in params["classes"]] == list(read_spec(path).classes)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "names no target classes"),
        ("model_config {", "not protobuf text format"),
        ("model_config { num_layers: 1.5 }", "not protobuf text format"),
        ("coco_config { }", "dataset conversion spec"),
        ("yolov4_config { }", "YOLOv4"),
        ('cost_function_config { target_classes { name: "a" } }', "no input size"),
        ("inferencer_config { " + 'target_classes: "a" ' * 2 + "}", "twice"),
        ("model_config " + "{ a " * 5000, "nests too deeply"),
        ("unknown_field: 3", "names no target classes"),
    ],
)
def test_unusable_specs_are_input_errors(tmp_path: Path, text: str, fact: str) -> None:
    """A file that is no usable spec is an InputError that names it and says what is wrong."""
    path = tmp_path / "spec.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=fact) as caught:
        read_spec(path)
    assert str(path) in caught.value.subject


def test_missing_and_binary_files(tmp_path: Path) -> None:
    """A missing or binary file is an InputError, not a traceback."""
    with pytest.raises(InputError, match="cannot be read"):
        read_spec(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_spec(tmp_path / "binary.txt")
    marked = tmp_path / "marked.txt"
    marked.write_text("random_seed: 42\n", encoding="utf-8-sig")  # as Windows' editors save it; nobody sees the mark
    with pytest.raises(InputError, match="byte order mark"):
        read_spec(marked)


def test_missing_clustering_names_the_class(tmp_path: Path, training: Path) -> None:
    """A class without clustering, and without `default`, is named."""
    path = tmp_path / "spec.txt"
    path.write_text(training.read_text().replace('"default"', '"other"'))
    with pytest.raises(InputError, match="no clustering for class bag"):
        to_params(read_spec(path))


def test_the_value_is_frozen(training: Path) -> None:
    """A spec cannot be changed after reading."""
    spec = read_spec(training)
    with pytest.raises(FrozenInstanceError):
        spec.kind = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.handling["x"] = spec.handling["person"]  # type: ignore[index]


def test_numbers_that_are_none(tmp_path: Path, training: Path) -> None:
    """A setting that is not a number is an InputError that names the class."""
    path = tmp_path / "spec.txt"
    path.write_text(training.read_text().replace("dbscan_eps: 0.15", "dbscan_eps: nan"))
    with pytest.raises(InputError, match="class person that is no usable number"):
        to_params(read_spec(path))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe would wait for its writer, and a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a file"):
            read_spec(path)
