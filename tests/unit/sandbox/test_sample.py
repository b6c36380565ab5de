"""The sample detector in the package is whole, is what its manifest says, and is what TAO leaves behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import tao2serve.sandbox
from tao2serve.tao.spec import ExperimentSpec, read_spec

SAMPLE = Path(tao2serve.sandbox.__file__).parent / "sample"
CLASSES = ("car", "person", "road_sign")
MODELS = ("unpruned", "pruned")
SCALARS = {
    "total_cost",
    "task_cost",
    "regularization_cost",
    "scaled_total_cost",
    "learning_rate",
    *(f"mean_cost_{name}_{part}" for name in CLASSES for part in ("cov", "bbox")),
}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return json.loads((SAMPLE / "MANIFEST.json").read_text(encoding="utf-8"))


def _weights(model: str) -> Path:
    (path,) = (SAMPLE / model / "weights").glob("*.hdf5")
    return path


def _spec(model: str) -> ExperimentSpec:
    return read_spec(SAMPLE / model / "experiment_spec.txt")


def _records(model: str) -> list[dict[str, Any]]:
    lines = (SAMPLE / model / "status.json").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _labels(stem: str) -> list[tuple[str, tuple[float, ...]]]:
    lines = (SAMPLE / "labels" / f"{stem}.txt").read_text(encoding="utf-8").splitlines()
    return [(line.split()[0], tuple(float(v) for v in line.split()[4:8])) for line in lines]


def test_every_file_is_in_the_manifest_with_its_hash_and_all_fit_into_four_megabytes(
    manifest: dict[str, Any],
) -> None:
    """A change to a file without its manifest, a stray file, or a sample too heavy to ship shows here."""
    files = {p.relative_to(SAMPLE).as_posix(): p for p in SAMPLE.rglob("*") if p.is_file()}
    del files["MANIFEST.json"]
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert found == {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert sum(path.stat().st_size for path in files.values()) <= 4_000_000


@pytest.mark.parametrize("model", MODELS)
def test_the_spec_has_the_classes_in_channel_order_and_the_network_s_input(
    model: str, manifest: dict[str, Any]
) -> None:
    """Class order and input size come from the spec alone, so they must agree with the network."""
    spec = _spec(model)
    assert spec.classes == CLASSES == tuple(manifest["network"]["classes"])
    assert [spec.input.channels, spec.input.height, spec.input.width] == manifest["network"]["input"]
    assert (spec.bbox_scale, spec.bbox_offset) == (35.0, 0.5)
    assert spec.model.arch == "resnet"
    assert spec.model.num_layers == 10
    assert spec.model.load_graph == (model == "pruned")
    assert bool(spec.model.pretrained_model_file) == (model == "pruned")
    assert spec.training.clearml is not None
    for name in CLASSES:
        clustering = spec.handling_of(name).clustering
        assert clustering.algorithm == "DBSCAN"
        assert clustering.dbscan_confidence_threshold > 0


@pytest.mark.parametrize("model", MODELS)
def test_the_hdf5_has_the_layout_of_tao_s_keras(model: str, manifest: dict[str, Any]) -> None:
    """Readers of TAO's files find the same attributes, types, layer names and weight order here."""
    with h5py.File(_weights(model)) as file:
        assert set(file.attrs) == {"keras_version", "backend", "model_config"}
        assert list(file) == ["model_weights"]
        assert file.attrs["keras_version"] == "2.2.4"
        config = json.loads(file.attrs["model_config"])["config"]
        names = [layer["name"] for layer in config["layers"]]
        group = file["model_weights"]
        assert [name.decode() for name in group.attrs["layer_names"]] == names
        assert names[:4] == ["input_1", "conv1", "bn_conv1", "activation_1"]
        assert names[-2:] == ["output_bbox", "output_cov"]
        assert config["layers"][0]["config"]["batch_input_shape"] == [None, *manifest["network"]["input"]]
        count = 0
        for layer in config["layers"]:
            own = group[layer["name"]]
            weights = [own[name] for name in own.attrs["weight_names"]]
            assert all(w.dtype == np.float32 and np.isfinite(w[()]).all() for w in weights)
            count += sum(w.size for w in weights)
            if layer["class_name"] == "Conv2D":
                settings = layer["config"]
                assert settings["data_format"] == "channels_first"
                assert [*weights[0].shape[:2]] == settings["kernel_size"]
                assert weights[0].shape[3] == settings["filters"] == weights[1].shape[0]
        assert count == manifest["measured"]["models"][model]["parameters"]


def test_the_pruned_network_has_the_same_layers_and_fewer_channels() -> None:
    """Pruning removes channels, never layers, and the two paths into an Add stay equally wide."""
    widths: dict[str, dict[str, int]] = {}
    for model in MODELS:
        with h5py.File(_weights(model)) as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        widths[model] = {e["name"]: e["config"]["filters"] for e in layers if e["class_name"] == "Conv2D"}
    assert widths["pruned"].keys() == widths["unpruned"].keys()
    assert all(widths["pruned"][name] <= width for name, width in widths["unpruned"].items())
    assert sum(widths["pruned"].values()) < sum(widths["unpruned"].values())
    for block in ("block_1a", "block_2a", "block_3a", "block_4a"):
        assert widths["pruned"][f"{block}_conv_2"] == widths["pruned"][f"{block}_conv_shortcut"]


@pytest.mark.parametrize("model", MODELS)
def test_status_and_scalars_tell_the_run_as_tao_does(model: str, manifest: dict[str, Any]) -> None:
    """The log has one line of metrics per validated epoch, in percent; the curves are thinned and in order."""
    records = _records(model)
    assert [records[0]["status"], records[-1]["status"]] == ["STARTED", "SUCCESS"]
    validated = [record for record in records if "kpi" in record]
    for record in validated:
        assert {"date", "time", "status", "verbosity", "message", "categorical", "graphical"} <= record.keys()
        precision = record["categorical"]["average_precision"]
        assert tuple(precision) == CLASSES
        mean = record["kpi"]["mean average precision"]
        assert mean == pytest.approx(sum(precision.values()) / len(CLASSES), abs=1e-3)
    last = validated[-1]
    measured = manifest["measured"]["models"][model]
    assert last["epoch"] == measured["epochs"]
    assert last["kpi"]["size"] == pytest.approx(_weights(model).stat().st_size / 2**20, abs=1e-3)
    scalars = json.loads((SAMPLE / model / "scalars.json").read_text(encoding="utf-8"))
    assert scalars.keys() == SCALARS
    for points in scalars.values():
        assert 1 < len(points) <= 200
        assert [at for at, _ in points] == sorted({at for at, _ in points})


def test_pictures_have_labels_inside_their_bounds(manifest: dict[str, Any]) -> None:
    """Every picture is larger than the network's input and every label lies in it."""
    stems = {path.stem for path in (SAMPLE / "images").glob("*.jpg")}
    assert stems == {path.stem for path in (SAMPLE / "labels").glob("*.txt")}
    assert stems == {item["stem"] for item in manifest["pictures"]["items"]}
    assert 8 <= len(stems) <= 12
    _, height, width = manifest["network"]["input"]
    for stem in stems:
        with Image.open(SAMPLE / "images" / f"{stem}.jpg") as image:
            assert image.width > width
            assert image.height > height
            labels = _labels(stem)
            assert len(labels) >= 3
            for name, (left, top, right, bottom) in labels:
                assert name in CLASSES
                assert 0 <= left < right <= image.width
                assert 0 <= top < bottom <= image.height


def test_the_pruned_model_finds_every_object_in_the_pictures_and_nothing_else(tmp_path: Path) -> None:
    """The showcase works through the real path: exported ONNX, JPEG bytes in, the spec's thresholds."""
    import onnxruntime

    from tao2serve.export.convert import export_onnx
    from tao2serve.runtime import DetectorParams, postprocess, preprocess
    from tao2serve.tao.params import to_params

    spec = _spec("pruned")
    artifact = export_onnx(_weights("pruned"), output=tmp_path / "pruned.onnx", spec=spec)
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    params = DetectorParams.from_dict(to_params(spec))
    for path in sorted((SAMPLE / "images").glob("*.jpg")):
        tensor, size = preprocess(path.read_bytes(), params)
        names = [artifact.signature.coverage.name, artifact.signature.bbox.name]
        cov, bbox = session.run(names, {artifact.signature.input.name: tensor[None]})
        detections = postprocess(cov[0], bbox[0], params, image_size=size)
        found = [
            (CLASSES[class_id], tuple(box)) for class_id, box in zip(detections.class_id, detections.xyxy, strict=True)
        ]
        labels = _labels(path.stem)
        assert sorted(name for name, _ in found) == sorted(name for name, _ in labels), path.name
        for name, box in labels:
            assert max(_iou(box, other) for label, other in found if label == name) >= 0.5, (path.name, name, box)


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(shared / (total - shared))
