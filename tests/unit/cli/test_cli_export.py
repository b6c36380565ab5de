"""`export` as a user calls it: which files are written, what the document says, and options that would do nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tao2serve.cli.main import run
from tao2serve.inspection import inspect_file
from tao2serve.sandbox.samples import SAMPLE

WEIGHTS = SAMPLE / "pruned" / "weights" / "resnet10_street_pruned.hdf5"
SPEC = SAMPLE / "pruned" / "experiment_spec.txt"
IMAGES, LABELS = SAMPLE / "images", SAMPLE / "labels"
CLUSTERING = """
classwise_clustering_config{ key: "default" value { coverage_threshold: 0.123 minimum_bounding_box_height: 7
    dbscan_config{ dbscan_eps: 0.4 dbscan_min_samples: 2 dbscan_confidence_threshold: 0.8 } } }
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))


class Export:
    """Runs the command in this process; `document` is what it printed last."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.document: dict[str, Any] = {}

    def __call__(self, *arguments: str | Path) -> int:
        code = run(["export", *map(str, arguments), "--json"])
        self.document = json.loads(self._capsys.readouterr().out)
        return code


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Export:
    return Export(capsys)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_both_graphs_are_written(export: Export, tmp_path: Path) -> None:
    """The lean one, which is to be served, comes first; TAO's stays beside it under the name it always had."""
    assert export(WEIGHTS, "-o", tmp_path / "o", "--uint8-input", "--absolute-boxes") == 0
    stem = WEIGHTS.stem
    assert names(tmp_path / "o") == ["experiment_spec.txt", "params.json", f"{stem}.onnx", f"{stem}_lean.onnx"]
    lean, plain = export.document["artifacts"]
    assert Path(lean["path"]).name == f"{stem}_lean.onnx"
    assert lean["input"] == {"name": "pixels", "datatype": "UINT8", "shape": [224, 384, 3]}
    assert [item["name"] for item in lean["outputs"]] == ["output_cov/Sigmoid:0", "output_boxes"]
    assert plain["input"] == {"name": "input_1:0", "datatype": "FP32", "shape": [3, 224, 384]}
    assert [item["name"] for item in plain["outputs"]] == ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]
    assert {lean["precision"], plain["precision"], lean["format"]} == {"fp32", "onnx"}
    assert any(step["name"] == "make the graph lean" for step in export.document["steps"])
    # Without the options nothing is as it was not: the same file under the same name.
    assert export(WEIGHTS, "-o", tmp_path / "plain") == 0
    assert (tmp_path / "plain" / f"{stem}.onnx").read_bytes() == (tmp_path / "o" / f"{stem}.onnx").read_bytes()


def test_a_lean_file_is_exported_as_it_lies(export: Export, tmp_path: Path) -> None:
    """With its spec beside it: accepted, and shown by inspect for what it is."""
    assert export(WEIGHTS, "-o", tmp_path / "o", "--uint8-input", "--absolute-boxes") == 0
    lean = export.document["artifacts"][0]
    assert export(lean["path"], "-o", tmp_path / "again") == 0
    assert [artifact["sha256"] for artifact in export.document["artifacts"]] == [lean["sha256"]]


def test_boxes_without_a_spec_are_wrong_usage(export: Export, tmp_path: Path) -> None:
    """Exit 2 and what to add; pixels alone need none."""
    alone = tmp_path / "alone" / "weights" / WEIGHTS.name
    alone.parent.mkdir(parents=True)
    alone.write_bytes(WEIGHTS.read_bytes())
    assert export(alone, "-o", tmp_path / "o", "--absolute-boxes") == 2
    assert export.document["error"]["hint"] == "add: --spec FILE"
    assert export(alone, "-o", tmp_path / "o", "--uint8-input") == 0
    assert export(alone, "-o", tmp_path / "with", "--absolute-boxes", "--spec", SPEC) == 0


@pytest.mark.parametrize(
    ("options", "named", "hint"),
    [
        (("--timing-cache", "t.cache"), "--timing-cache", "--engine"),
        (("--trtexec", "/usr/bin/trtexec", "--max-batch", "4"), "--max-batch, --trtexec", "--engine"),
        (("--workspace", "1"), "--workspace", "--engine"),
        (("--min-batch", "1"), "--min-batch", "--engine"),
        (("--opt-batch", "4"), "--opt-batch", "--engine"),
        (("--precision", "int8", "--calibration-cache", "c", "--calibration-method", "minmax"), "--calibration-method",
         "--calibration-images"),
        (("--images", IMAGES), "--images", "--precision"),
        (("--precision", "fp32", "--images", IMAGES, "--labels", LABELS), "--images, --labels", "--precision"),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing(
    export: Export, tmp_path: Path, options: tuple[str | Path, ...], named: str, hint: str
) -> None:
    """Exit 2 before any work, naming the option and the one that it needs."""
    assert export(WEIGHTS, "-o", tmp_path / "o", *options) == 2
    assert export.document["error"]["subject"] == named
    assert "no effect" in export.document["error"]["fact"]
    assert hint in export.document["error"]["hint"]
    assert not (tmp_path / "o").exists()


def test_a_clustering_file_stays_with_the_export(export: Export, tmp_path: Path) -> None:
    """Whoever reads the exported spec reads the clustering over it: exported again, params.json is the same."""
    clustering = tmp_path / "clustering.prototxt"
    clustering.write_text(CLUSTERING)
    assert export(WEIGHTS, "-o", tmp_path / "o", "--clustering", clustering) == 0
    assert (tmp_path / "o" / "experiment_spec_clustering.txt").read_text() == CLUSTERING
    params = json.loads((tmp_path / "o" / "params.json").read_text())
    assert {entry["coverage_threshold"] for entry in params["classes"]} == {0.123}
    onnx = export.document["artifacts"][0]["path"]
    assert export(onnx, "-o", tmp_path / "again") == 0
    assert names(tmp_path / "again") == names(tmp_path / "o")
    for name in ("params.json", "experiment_spec_clustering.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "o" / name).read_bytes()
    assert any("lies over its clustering" in warning for warning in export.document["warnings"])
    seen = inspect_file(tmp_path / "o" / "experiment_spec.txt")
    assert any("lies over this clustering" in note for note in seen.unusual)
    assert export(onnx, "-o", tmp_path / "o") == 0  # into the same folder: nothing differs


def test_a_clustering_file_of_another_export_is_in_the_way(export: Export, tmp_path: Path) -> None:
    """It would change what the exported spec says; --force takes it away."""
    clustering = tmp_path / "clustering.prototxt"
    clustering.write_text(CLUSTERING)
    assert export(WEIGHTS, "-o", tmp_path / "o", "--clustering", clustering) == 0
    assert export(WEIGHTS, "-o", tmp_path / "o") == 2
    assert "would change the clustering" in export.document["error"]["fact"]
    assert export(WEIGHTS, "-o", tmp_path / "o", "--force") == 0
    assert "experiment_spec_clustering.txt" not in names(tmp_path / "o")
    params = json.loads((tmp_path / "o" / "params.json").read_text())
    assert {entry["coverage_threshold"] for entry in params["classes"]} != {0.123}
