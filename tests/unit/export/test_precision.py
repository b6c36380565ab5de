"""One artifact in, another precision out; and what that costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from precision_files import accepted, detector, hand_made, largest_ranges, model_of

from tao2serve.errors import InputError, UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.precision.nodes import properties
from tao2serve.export.precision.write import Precision, to_precision
from tao2serve.tao.source import sha256_of
from tao2serve.values import ModelArtifact


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
