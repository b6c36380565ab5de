"""The GPU benchmark, run small on the CPU: what it prints and writes is complete."""

from __future__ import annotations

import json
from pathlib import Path

import gpu_latency
import pytest

from tao2serve.export.inference import onnxruntime

SMALL = ("--height", "32", "--width", "48", "--rounds", "2", "--seconds", "0.01", "--threads", "1")


def test_every_case_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each batch size has as many rounds as asked for, its error against the CPU, and a row in the table."""
    path = tmp_path / "results.json"
    arguments = ["--provider", "cpu", "--precision", "fp32", "--batch", "1", "3", *SMALL, "--json", str(path)]
    assert gpu_latency.main(arguments) == 0
    document = json.loads(path.read_text())
    assert [(case["precision"], case["batch"]) for case in document["cases"]] == [("fp32", 1), ("fp32", 3)]
    for case in document["cases"]:
        assert len(case["latencies_ms"]) == len(case["images_per_s"]) == 2
        assert min(case["latencies_ms"]) > 0
        assert case["coverage_max_error"] < 1e-4
        assert set(case["nodes"]) == {"CPUExecutionProvider"}
    assert document["versions"]["onnxruntime"] == onnxruntime().__version__
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("resnet18, 32×48, onnxruntime")
    assert len(table) == 6
    assert table[-1].startswith("| fp32 | 3 |")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime().get_available_providers(), reason="CUDA provider is here")
def test_without_the_cuda_provider_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """An onnxruntime without CUDA is a missing tool, and nothing is measured on the CPU in its place."""
    assert gpu_latency.main([*SMALL]) == 4
    assert "pip install onnxruntime-gpu" in capsys.readouterr().err
