"""One artifact in, another precision out; and what that costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from precision_files import PARAMS, accepted, detector, hand_made, largest_ranges, model_of, write_pictures

from tao2serve.errors import InputError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.local import LocalDetector
from tao2serve.export.precision.calibrate import calibrate
from tao2serve.export.precision.cost import measure_cost
from tao2serve.export.precision.nodes import properties
from tao2serve.export.precision.write import Precision, to_precision
from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.tao.params import to_params
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelArtifact


def _sample(folder: Path) -> tuple[ModelArtifact, DetectorParams]:
    """The trained sample, which finds boxes on its pictures."""
    run = SAMPLE / "pruned"
    (weights,) = (run / "weights").glob("*.hdf5")
    return export_onnx(weights, output=folder), DetectorParams.from_dict(
        to_params(read_spec(run / "experiment_spec.txt"))
    )


def _written(artifact: ModelArtifact, precision: Precision, output: Path) -> ModelArtifact:
    return to_precision(artifact, precision=precision, output=output, ranges=largest_ranges(artifact), fold=True)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_artifact_and_its_record(tmp_path: Path, precision: Precision) -> None:
    """What comes back describes the file, which says its precision and the digests of what it was made from."""
    artifact = detector(tmp_path)
    (tmp_path / "out").mkdir()
    made = _written(artifact, precision, tmp_path / "out")
    assert made.path == tmp_path / "out" / f"tiny_{precision}.onnx"
    assert made.sha256 == sha256_of(made.path)
    assert (made.precision, made.source_sha256) == (precision, artifact.source_sha256)
    assert made.signature == artifact.signature
    assert replace(accept_onnx(made.path), source_sha256=artifact.source_sha256) == made
    record = properties(model_of(made))
    assert record["tao2serve.precision"] == precision
    assert record["tao2serve.source_sha256"] == artifact.source_sha256
    assert record["tao2serve.made_from_sha256"] == artifact.sha256
    assert record["tao2serve.keras_version"] == "2.2.4"
    assert record["tao2serve.batch_norm"] == "folded"
    if precision == "int8":
        assert record["tao2serve.range_source"] == "calibration images"
        assert record["tao2serve.range_method"] == "minmax"
        assert record["tao2serve.range_images"] == "2"


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_same_artifact_gives_the_same_bytes(tmp_path: Path, precision: Precision) -> None:
    """Two runs write identical files."""
    artifact = detector(tmp_path)
    first, second = (_written(artifact, precision, tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_fp32_as_it_is(tmp_path: Path) -> None:
    """fp32 without folding is the artifact that is there: nothing is written."""
    artifact = detector(tmp_path)
    assert to_precision(artifact, precision="fp32", output=tmp_path / "out.onnx") is artifact
    assert not (tmp_path / "out.onnx").exists()


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    """int8 without ranges is wrong usage; another source than fp32 ONNX is InputError; nothing is left behind."""
    artifact = detector(tmp_path)
    output = tmp_path / "out.onnx"
    with pytest.raises(UsageError, match="needs to know how large"):
        to_precision(artifact, precision="int8", output=output)
    half = to_precision(artifact, precision="fp16", output=tmp_path / "half.onnx")
    for precision in get_args(Precision):
        with pytest.raises(InputError, match="is fp16 already"):
            to_precision(half, precision=precision, output=output, fold=True, ranges=largest_ranges(artifact))
    plan = replace(artifact, format="tensorrt_plan")
    with pytest.raises(InputError, match="is not an ONNX file"):
        to_precision(plan, precision="fp16", output=output)
    assert not output.exists()


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    """A model with external data becomes one file; missing data is InputError."""
    nodes = [onnx.helper.make_node("Conv", ["input_1", "w"], ["features"])]
    model = hand_made(nodes, {"w": np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)})
    path = tmp_path / "big.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="big.bin", size_threshold=0)
    artifact = accept_onnx(path)
    assert artifact.companions
    half = to_precision(artifact, precision="fp16", output=tmp_path / "out" / "half.onnx")
    assert accept_onnx(half.path).companions == half.companions == ()
    (tmp_path / "big.bin").unlink()
    with pytest.raises(InputError, match="cannot be read with its weights"):
        to_precision(artifact, precision="fp16", output=tmp_path / "again.onnx")


def test_a_graph_with_a_loop_is_refused(tmp_path: Path) -> None:
    """Nodes that feed each other end in InputError, not in a wait."""
    nodes = [
        onnx.helper.make_node("Add", ["input_1", "b"], ["a"]),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Conv", ["b", "w"], ["features"]),
    ]
    weights = {"w": np.ones((4, 3, 1, 1), np.float32), "b": np.ones((1, 3, 16, 24), np.float32)}
    artifact = accepted(hand_made(nodes[2:], weights), tmp_path)
    model = hand_made(nodes, {"w": weights["w"]})
    onnx.save(model, str(artifact.path))
    for precision in ("fp16", "fp32"):
        with pytest.raises(InputError):
            to_precision(artifact, precision=precision, output=tmp_path / "out.onnx", fold=True)


def test_the_cost_of_nothing_is_nothing(tmp_path: Path) -> None:
    """A model compared with itself differs nowhere, and every box finds itself."""
    artifact, params = _sample(tmp_path)
    cost = measure_cost(artifact, artifact, params, pictures()[:3])
    assert cost.coverage.max_abs == cost.bbox.mean_abs == 0
    assert cost.coverage.shape == (3, *artifact.signature.coverage.shape)
    assert cost.boxes.matched == cost.boxes.expected > 0
    assert cost.findings == ()


def test_the_cost_is_that_of_the_outputs(tmp_path: Path) -> None:
    """Largest and mean differences are over all pictures, and the boxes are those the artifacts give."""
    artifact, params = _sample(tmp_path)
    images = pictures()[:3]
    made = _written(artifact, "int8", tmp_path / "int8.onnx")
    news: list[str] = []
    cost = measure_cost(artifact, made, params, images, on_news=news.append)
    single = [measure_cost(artifact, made, params, [path]) for path in images]
    assert cost.coverage.max_abs == max(one.coverage.max_abs for one in single) > 0
    assert cost.bbox.mean_abs == pytest.approx(sum(one.bbox.mean_abs for one in single) / 3)
    assert cost.boxes.expected == sum(one.boxes.expected for one in single) > 0
    assert (cost.precision, cost.images) == ("int8", images)
    assert news[-1] == "comparing: 3 of 3 images"
    for side, boxes in ((artifact, cost.reference_boxes), (made, cost.candidate_boxes)):
        for path, found in zip(images, boxes, strict=True):
            expected = LocalDetector(side, params).detect(path.read_bytes())
            np.testing.assert_array_equal(found.xyxy, expected.xyxy)


def test_artifacts_that_do_not_belong_together(tmp_path: Path) -> None:
    """Another input size, and no pictures, are InputError."""
    artifact = detector(tmp_path)
    nodes = [onnx.helper.make_node("Conv", ["input_1", "w"], ["features"])]
    other = accepted(hand_made(nodes, {"w": np.ones((4, 3, 1, 1), np.float32)}), tmp_path)
    with pytest.raises(InputError, match="takes another input"):
        measure_cost(artifact, other, PARAMS, write_pictures(tmp_path / "images", 1))
    with pytest.raises(InputError, match="without images"):
        measure_cost(artifact, artifact, PARAMS, ())


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.99), ("int8", 0.9)])
def test_the_sample_keeps_its_boxes(tmp_path: Path, precision: Precision, least: float) -> None:
    """The trained sample loses no more boxes on its pictures than the parity gate allows."""
    artifact, params = _sample(tmp_path)
    ranges = calibrate(model_of(artifact), pictures(), params=params, subject="sample")
    made = to_precision(artifact, precision=precision, output=tmp_path, ranges=ranges, fold=True)
    cost = measure_cost(artifact, made, params, pictures())
    assert cost.boxes.expected > 80
    assert cost.boxes.matched_ratio >= least
    assert cost.findings == ()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """A name that is no text and a weight whose bytes do not fill its shape are InputError."""
    artifact = detector(tmp_path)
    ranges, content, model = largest_ranges(artifact), artifact.path.read_bytes(), model_of(artifact)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    for damaged, fact in (
        (content.replace(b"conv1/BiasAdd:0", b"conv1/Bi\xffsAdd:0"), "damaged ONNX file"),
        (model.SerializeToString(), "a weight that is damaged"),
    ):
        artifact.path.write_bytes(damaged)
        for precision in get_args(Precision):
            with pytest.raises(InputError, match=fact):
                to_precision(artifact, precision=precision, output=tmp_path / "out.onnx", fold=True, ranges=ranges)
