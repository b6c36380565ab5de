"""Exported ONNX gives the numbers of NVIDIA's Keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tao2serve.export.convert import export_onnx
from tao2serve.export.signature import read_signature


def _cases(golden: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((golden / "models" / "MANIFEST.json").read_text())
    return cases


def test_every_reference_model_is_exact(golden: Path, tmp_path: Path) -> None:
    """Each reference model, pruned ResNet included, gives NVIDIA's outputs within the suggested tolerance."""
    import onnxruntime

    for case in _cases(golden):
        source = golden / "models" / f"{case['name']}.hdf5"
        artifact = export_onnx(source, output=tmp_path / f"{case['name']}.onnx")
        assert artifact.source_sha256 == case["sha256"]
        arrays = np.load(source.with_suffix(".npz"))
        session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
        coverage, bbox = session.run(None, {"input_1:0": arrays["input"]})
        assert np.abs(coverage - arrays["output_cov"]).max() <= case["suggested_atol"], case["name"]
        assert np.abs(bbox - arrays["output_bbox"]).max() <= case["suggested_atol"], case["name"]


def test_graph_is_strict_and_keeps_tensorflows_names(golden: Path, tmp_path: Path) -> None:
    """ONNX's own shape inference agrees with our arithmetic, and calibration names exist."""
    for case in _cases(golden):
        artifact = export_onnx(golden / "models" / f"{case['name']}.hdf5", output=tmp_path)
        model = onnx.load(str(artifact.path))
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        assert [x.name for x in model.graph.input] == ["input_1:0"]
        assert [x.name for x in model.graph.output] == ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
        assert model.opset_import[0].version >= 12
        if case["template"] == "resnet":
            names = {name for node in model.graph.node for name in node.output}
            assert {
                "activation_1/Relu:0",
                "add_1/add:0",
                "conv1/BiasAdd:0",
                "bn_conv1/batchnorm/mul_1:0",
                "bn_conv1/batchnorm/add_1:0",
            } <= names
        signature = read_signature(artifact.path)
        assert signature == artifact.signature
        assert signature.input.shape == tuple(case["input_chw"])
        assert (2, *signature.coverage.shape) == tuple(case["cov_shape"])
        assert (2, *signature.bbox.shape) == tuple(case["bbox_shape"])


def test_the_same_source_gives_the_same_bytes(golden: Path, tmp_path: Path) -> None:
    """Two exports, in two places, have one digest; the file says what it was made from."""
    source = golden / "models" / "resnet18_pruned.hdf5"
    first = export_onnx(source, output=tmp_path / "a" / "model.onnx")
    second = export_onnx(source, output=tmp_path / "b.onnx")
    assert first.sha256 == second.sha256
    properties = {item.key: item.value for item in onnx.load(str(first.path)).metadata_props}
    assert properties["tao2serve.source_sha256"] == first.source_sha256
    assert properties["tao2serve.version"]


@pytest.mark.parametrize("batch", [1, 5])
def test_batch_is_open(golden: Path, tmp_path: Path, batch: int) -> None:
    """Any number of images fits."""
    import onnxruntime

    artifact = export_onnx(golden / "models" / "squeezenet.hdf5", output=tmp_path)
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    coverage, _ = session.run(None, {"input_1:0": np.zeros((batch, 3, 96, 160), np.float32)})
    assert coverage.shape == (batch, 2, 6, 10)
