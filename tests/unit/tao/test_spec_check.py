"""What is wrong with a spec is found where it stands, and NVIDIA's own specs have nothing wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.spec_check import CheckedSpec, check_spec
from tao2serve.tao.spec_findings import Finding


@pytest.fixture
def checked(golden: Path, tmp_path: Path) -> Callable[[str, str], CheckedSpec]:
    """Check NVIDIA's training spec with one piece of its text replaced."""
    text = (golden / "specs" / "tao_tutorials_5.0" / "detectnet_v2_train_resnet18_kitti.txt").read_text()

    def check(old: str, new: str) -> CheckedSpec:
        assert old in text
        path = tmp_path / "spec.txt"
        path.write_text(text.replace(old, new, 1))
        return check_spec(path)

    return check


def the_only(checked: CheckedSpec) -> Finding:
    assert len(checked.findings) == 1, checked.findings
    return checked.findings[0]


def test_nvidias_specs_have_no_errors(golden: Path) -> None:
    """Every training and inference spec of NVIDIA's tutorials passes; those of conversion are refused by name."""
    seen = 0
    for path in sorted((golden / "specs").rglob("*.txt")):
        if "tfrecords" in path.name:
            with pytest.raises(InputError, match="dataset conversion spec"):
                check_spec(path)
            continue
        seen += 1
        assert check_spec(path).errors == (), path
    assert seen == 16


def test_the_samples_specs_have_no_errors() -> None:
    """Our own sample trains and serves; that its thresholds exceed what TAO 5.0 trains with is a warning."""
    for path in sorted(SAMPLE.rglob("experiment_spec.txt")):
        checked = check_spec(path)
        assert checked.errors == ()
        assert {finding.field.rpartition(".")[2] for finding in checked.findings} == {"dbscan_confidence_threshold"}


IMAGE = "augmentation_config.preprocessing"
TRAINING = "training_config"
CLUSTERING = "postprocessing_config.target_class_config[car].value.clustering_config"


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "problem", "why"),
    [
        ("output_image_width: 1248", "output_image_width: 1250", "output_image_width: 1250",
         f"{IMAGE}.output_image_width", "not a multiple of 16, the stride of resnet", "disagree on where boxes lie"),
        ("use_batch_norm: true", "use_batch_norm: true use_pooling: true", "output_image_width: 1248",
         f"{IMAGE}.output_image_width", "not a multiple of 224", ""),
        ('key: "van"\n    value: "car"', 'key: "van"\n    value: "van"', 'value: "van"',
         "dataset_config.target_class_mapping[van].value", "maps 'van' to 'van', which is no target", "background"),
        ('  target_class_mapping {\n    key: "cyclist"\n    value: "cyclist"\n  }\n', "", "dataset_config {",
         "dataset_config.target_class_mapping", "maps no name of the labels to 'cyclist'", "without one object"),
        ("bbox_min_radius: 1.0", "bbox_min_radius: 1.5", "bbox_min_radius: 1.5",
         "bbox_rasterizer_config.target_class_config[car].value.bbox_min_radius", "must lie in 0 to 1", "exit code"),
        ('ground_truth_overlap {\n    key: "cyclist"', 'ground_truth_overlap {\n    key: "bike"',
         "minimum_detection_ground_truth_overlap {", "evaluation_config.minimum_detection_ground_truth_overlap",
         "no entry for target class 'cyclist'", "ValueError"),
        ("num_epochs: 120", "num_epochs: 0", "num_epochs: 0", f"{TRAINING}.num_epochs", "must be above 0", "success"),
        ("  num_epochs: 120\n", "", "training_config {", f"{TRAINING}.num_epochs", "is absent, which reads as 0", ""),
        ("num_epochs: 120", 'num_epochs: "many"', 'num_epochs: "many"', "", "", "TAO reads no further"),
        ("num_epochs: 120", "num_epochs: 4", "infrequent_logging_frequency: 5",
         f"{TRAINING}.visualizer.infrequent_logging_frequency", "is 5, and there are 4 epochs", "ValueError"),
        ("  checkpoint_interval: 10", "  checkpoint_intervall: 10", "checkpoint_intervall: 10",
         f"{TRAINING}.checkpoint_intervall", "is no field of TAO 5.0", "skips no field"),
        ("soft_start: 0.10000000149", "soft_start: early", "soft_start: early",
         f"{TRAINING}.learning_rate.soft_start_annealing_schedule.soft_start", "is early, and TAO reads a number", ""),
        ("clustering_algorithm: DBSCAN", "clustering_algorithm: HYBRID", "clustering_algorithm: HYBRID",
         f"{CLUSTERING}.clustering_algorithm", "is HYBRID", "NotImplementedError"),
        ('project: "TAO Toolkit ClearML Demo"', 'project: "ab"', 'project: "ab"',
         f"{TRAINING}.visualizer.clearml_config.project", "'ab' is too short", "untracked"),
        ('target_classes {\n    name: "cyclist"', 'target_classes {\n    name: "car"', 'name: "car"',
         "cost_function_config.target_classes[0].name", "another target class is named too", "never trained"),
        ("  optimizer {", "  optimiser {", "training_config {", f"{TRAINING}.optimizer", "is missing", "success"),
    ],
)  # fmt: skip
def test_each_fault_is_found_where_it_stands(
    checked: Callable[[str, str], CheckedSpec], old: str, new: str, line: str, field: str, problem: str, why: str
) -> None:
    """One fault in NVIDIA's spec is an error with its line, its field, why it matters and what mends it."""
    result = checked(old, new)
    (found,) = (one for one in result.errors if one.field == field and problem in one.problem)
    assert why in found.why
    assert found.remedy
    assert found.line is not None
    assert result.path.read_text().splitlines()[found.line - 1].strip() == line


def test_a_stride_of_32_divides_too(checked: Callable[[str, str], CheckedSpec]) -> None:
    """1248x384 is divisible by efficientnet_b0's 32 as well: the stride is that of the template, not 16."""
    result = checked('arch: "resnet"', 'arch: "efficientnet_b0"')
    assert (result.errors, result.stride) == ((), 32)


def test_a_class_without_clustering(checked: Callable[[str, str], CheckedSpec]) -> None:
    """The class is named, and the entry of a misspelt name is found too."""
    result = checked(
        'key: "pedestrian"\n    value {\n      clustering_config',
        'key: "pedestrain"\n    value {\n      clustering_config',
    )
    assert [finding.problem for finding in result.errors] == ["has no entry for target class 'pedestrian'"]
    assert any("'pedestrain', which is no target class" in finding.problem for finding in result.findings)


def test_capital_letters_map_nothing(checked: Callable[[str, str], CheckedSpec]) -> None:
    """A key with capitals is a warning, and an error where the class has no other."""
    result = checked('key: "cyclist"\n    value: "cyclist"', 'key: "Cyclist"\n    value: "cyclist"')
    assert {(finding.severity, finding.field) for finding in result.findings} == {
        ("warning", "dataset_config.target_class_mapping[Cyclist].key"),
        ("error", "dataset_config.target_class_mapping"),
    }


def test_no_tracking_is_a_warning_with_the_command(golden: Path) -> None:
    """The common case: the spec is fine, ClearML would hear nothing, and `spec patch` is named."""
    found = the_only(check_spec(golden / "specs" / "facenet_5.5" / "facenet_train_resnet18_kitti.txt"))
    assert (found.severity, found.stage, found.line) == ("warning", "tracking", 110)
    assert "tao2serve spec patch" in found.remedy


def test_what_is_said_twice(checked: Callable[[str, str], CheckedSpec]) -> None:
    """TAO takes the last of two values, and merges two messages: both are said, neither is an error."""
    value = the_only(checked("num_epochs: 120", "num_epochs: 90\n  num_epochs: 120"))
    assert (value.severity, value.field) == ("warning", "training_config.num_epochs")
    message = the_only(
        checked("bbox_rasterizer_config {", "training_config { enable_qat: true }\nbbox_rasterizer_config {")
    )
    assert (message.problem, message.why) == ("is given 2 times (lines 201, 270)", "TAO merges them")


def test_broken_text_is_one_finding(tmp_path: Path) -> None:
    """What protobuf cannot read is an error with its line, not an exception."""
    path = tmp_path / "spec.txt"
    path.write_text("random_seed: 42\ntraining_config {\n  num_epochs: : 3\n}\n")
    found = the_only(check_spec(path))
    assert (found.severity, found.line) == ("error", 3)


def test_an_empty_spec_misses_everything(tmp_path: Path) -> None:
    """Each message that TAO wants is named."""
    path = tmp_path / "spec.txt"
    path.write_text("")
    missing = {finding.field for finding in check_spec(path).errors if finding.problem == "is missing"}
    assert {"training_config", "dataset_config", "evaluation_config", "bbox_rasterizer_config"} <= missing


def test_an_inference_spec_without_clustering(golden: Path, tmp_path: Path) -> None:
    """`default` serves all classes; without it and an entry, the class is named. Sizes are held against the stride."""
    text = (golden / "specs" / "tao_tutorials_5.0" / "detectnet_v2_inference_kitti_tlt.txt").read_text()
    path = tmp_path / "spec.txt"
    path.write_text(text.replace('key:"default"', 'key:"deflt"').replace("image_width: 1248", "image_width: 1250"))
    problems = [finding.problem for finding in check_spec(path).errors]
    assert "is 1250, not a multiple of the stride, 16" in problems
    assert not [problem for problem in problems if "no entry" in problem]  # each class has its own
    path.write_text(text.replace('key:"car"', 'key:"cra"').replace('key:"default"', 'key:"deflt"'))
    assert [finding.problem for finding in check_spec(path).errors] == ["has no entry for target class 'car'"]
