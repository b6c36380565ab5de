"""inspect says what a file is by its content, and what is unusual about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from keras_files import KerasFile, tiny_resnet
from plan_files import VERSION, plan_bytes, record

from tao2serve.cli.inspect import table
from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.record import record_path
from tao2serve.export.lean import make_lean
from tao2serve.inspection import inspect_file
from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.params import to_params
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import read_spec

PRUNED = SAMPLE / "pruned"
WEIGHTS = next((PRUNED / "weights").glob("*.hdf5"))


def test_a_keras_file(golden: Path) -> None:
    """Template, depth, pruning, sizes and stride come from the layers; class names need a spec."""
    document = inspect_file(golden / "models" / "resnet18_pruned.hdf5").to_dict()
    assert document["kind"] == "keras_hdf5"
    assert (document["template"], document["num_layers"]) == ("resnet", 18)
    assert (document["pruned"], document["qat"]) == (True, False)
    assert document["input"] == {"name": "input_1:0", "datatype": "FP32", "shape": [3, 96, 160]}
    assert [output["shape"] for output in document["outputs"]] == [[3, 6, 10], [12, 6, 10]]
    assert (document["stride"], document["class_count"], document["classes"]) == (16, 3, None)
    json.dumps(document)


def test_classes_come_from_the_spec_beside(tmp_path: Path) -> None:
    """A spec that lies where TAO leaves it names the classes; one that does not belong is unusual, not fatal."""
    assert inspect_file(WEIGHTS).classes == ("car", "person", "road_sign")
    source = tiny_resnet(tmp_path / "model.hdf5")
    shutil.copy(PRUNED / "experiment_spec.txt", tmp_path)
    found = inspect_file(source)
    assert found.classes is None
    assert "classes: the model has 2, the spec has 3" in found.unusual[0]
    with pytest.raises(InputError, match="does not belong"):
        inspect_file(source, spec=tmp_path / "experiment_spec.txt")


def test_an_onnx_file(tmp_path: Path) -> None:
    """Signature, precision, opset and where it came from."""
    artifact = export_onnx(WEIGHTS, output=tmp_path / "model.onnx")
    document = inspect_file(artifact.path).to_dict()
    assert (document["kind"], document["precision"], document["stride"]) == ("onnx", "fp32", 16)
    assert document["opset"] == 13
    assert document["producer"].startswith("tao2serve ")
    assert document["sha256"] == artifact.sha256
    assert document["metadata"]["tao2serve.source_sha256"] == artifact.source_sha256


def test_a_lean_onnx_file(tmp_path: Path) -> None:
    """What it takes and gives, and with what it decodes; template and weights are those of TAO's graph."""
    plain = export_onnx(WEIGHTS, output=tmp_path / "model.onnx")
    params = DetectorParams.from_dict(to_params(read_spec(PRUNED / "experiment_spec.txt")))
    lean = make_lean(plain, output=tmp_path / "l.onnx", uint8_input=True, absolute_boxes=True, params=params)
    found, document = inspect_file(lean.path), inspect_file(plain.path).to_dict()
    assert (document["takes"], document["gives"]) == ("tensor", "offsets")
    assert "bbox_scale" not in document
    seen = found.to_dict()
    assert (seen["kind"], seen["takes"], seen["gives"], seen["stride"]) == ("onnx", "pixels", "boxes", 16)
    assert seen["input"] == {"name": "pixels", "datatype": "UINT8", "shape": [224, 384, 3]}
    assert (seen["bbox_scale"], seen["bbox_offset"]) == (35.0, 0.5)
    for name in ("template", "num_layers", "parameters", "pruned", "precision", "exporter", "naming"):
        assert seen[name] == document[name], name
    shown = table(found)
    assert "pixels UINT8 [N, 224, 384, 3], scaled in the graph" in shown
    assert "output_boxes FP32 [N, 12, 14, 24], boxes in network pixels" in shown
    other = tmp_path / "other.txt"
    other.write_text((PRUNED / "experiment_spec.txt").read_text().replace("scale: 35.0", "scale: 20.0"))
    with pytest.raises(InputError, match="decodes its boxes otherwise"):
        inspect_file(lean.path, spec=other)


def test_an_experiment_spec(golden: Path) -> None:
    """Classes in order, input, clustering, and where ClearML tracked it; training and inference specs alike."""
    document = inspect_file(PRUNED / "experiment_spec.txt").to_dict()
    assert document["kind"] == "experiment_spec"
    assert document["classes"] == ["car", "person", "road_sign"]
    assert document["input"]["shape"] == [3, 224, 384]
    assert document["clearml"]["project"] == "street-detector"
    assert [entry["name"] for entry in document["clustering"]] == document["classes"]
    folder = golden / "specs" / "tao_tutorials_5.5"
    assert inspect_file(folder / "detectnet_v2_inference_kitti_tlt.txt").to_dict()["spec_kind"] == "inference"
    with pytest.raises(InputError, match="dataset conversion spec"):
        inspect_file(folder / "detectnet_v2_tfrecords_kitti_trainval.txt")


def test_a_plan_and_its_record(tmp_path: Path) -> None:
    """What built it, of what, for which GPU; without its record only what the header tells."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes())
    document = inspect_file(path).to_dict()
    assert (document["kind"], document["tensorrt_version_in_header"]) == ("tensorrt_plan", VERSION)
    assert document["record"] is None
    assert "no record" in document["unusual"][0]
    record_path(path).write_bytes(record(plan_sha256=sha256_of(path)).to_json())
    document = inspect_file(path).to_dict()
    assert document["record"]["gpu_name"] == "NVIDIA H200"
    assert document["record"]["compute_capability"] == "9.0"
    assert (document["precision"], document["stride"]) == ("fp16", 4)
    text = table(inspect_file(path))
    assert "NVIDIA H200" in text
    assert "{" not in text


def test_a_plan_for_another_machine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides and the command that builds it anew are shown; the machine here is a made-up one."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes())
    record_path(path).write_bytes(record(plan_sha256=sha256_of(path)).to_json())
    other = Machine(gpu_name="NVIDIA T4", compute_capability="7.5", tensorrt_version=VERSION, platform="linux-x86_64")
    monkeypatch.setattr("tao2serve.inspection.read_machine", lambda: other)
    found = inspect_file(path)
    assert found.facts["fits_here"] is False
    assert "NVIDIA T4" in found.unusual[0]
    assert "--engine" in found.unusual[0]


def test_a_clustering_file(tmp_path: Path) -> None:
    """That of tao-toolkit-triton-apps is told from a spec, and its settings are shown."""
    path = tmp_path / "clustering.txt"
    path.write_text(
        'linewidth: 4 stride: 16 classwise_clustering_config { key: "car" value: { coverage_threshold: 0.005 '
        "minimum_bounding_box_height: 4 dbscan_config { dbscan_eps: 0.3 dbscan_min_samples: 0.05 "
        "dbscan_confidence_threshold: 0.9 } } }"
    )
    document = inspect_file(path).to_dict()
    assert (document["kind"], document["stated_stride"]) == ("clustering_file", 16)
    assert (document["clustering"][0]["name"], document["clustering"][0]["dbscan_eps"]) == ("car", 0.3)
    assert "dbscan_eps 0.3" in table(inspect_file(path))


def test_a_model_that_cannot_be_exported_is_shown_all_the_same(tmp_path: Path) -> None:
    """The layer that stands in the way is named as unusual."""
    file = KerasFile()
    x = file.layer("mystery", "Lambda", {"function": "x"}, [file.input])
    file.heads(x, 3)
    found = inspect_file(file.write(tmp_path / "model.hdf5"))
    assert found.signature is None
    assert "mystery" in found.unusual[0]
    assert "cannot be exported" in table(found)


def test_files_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    """What is missing, foreign, damaged or encrypted gets a clear error; a spec for a spec is wrong usage."""
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\x00" * 50)
    with pytest.raises(InputError, match="no model file"):
        inspect_file(tmp_path / "picture.jpg")
    with pytest.raises(InputError, match="does not exist"):
        inspect_file(tmp_path / "missing")
    with pytest.raises(InputError, match="folder"):
        inspect_file(tmp_path)
    (tmp_path / "cut.hdf5").write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(InputError):
        inspect_file(tmp_path / "cut.hdf5")
    (tmp_path / "words.txt").write_text("just words")
    with pytest.raises(InputError, match="text format"):
        inspect_file(tmp_path / "words.txt")
    (tmp_path / "model.tlt").write_bytes(b"\x01\x02")
    with pytest.raises(ToolError, match="encrypted"):
        inspect_file(tmp_path / "model.tlt")
    with pytest.raises(UsageError):
        inspect_file(PRUNED / "experiment_spec.txt", spec=PRUNED / "experiment_spec.txt")


def test_the_table_is_readable() -> None:
    """Every row is a name and its value; nothing of Python shows through."""
    for path in (WEIGHTS, PRUNED / "experiment_spec.txt"):
        text = table(inspect_file(path))
        assert "None" not in text
        assert "{" not in text
        assert "car, person, road_sign" in text
