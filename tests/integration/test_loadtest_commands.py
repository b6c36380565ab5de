"""`loadtest` on a deployed endpoint: its first requests after a load, and Triton itself beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration

SHORT = ("--run-time", "1s", "--warmup", "0.5s", "--json")


def test_a_cold_start_is_measured_apart(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """Refused for a version with traffic; forced, it loads the model anew, and says what the first requests took."""
    version = f"street/{deployed['endpoint']['version']}"
    command = ("loadtest", version, "--images", pictures()[0], "-o", tmp_path, "--cold-start", *SHORT)
    refused = sandbox.tao2serve(*command)
    assert refused.code == 2
    assert "alias street routes to it" in refused.document["error"]["evidence"]
    told = sandbox.tao2serve(*command, "--force").assert_success().document
    cold = told["cold_start"]
    assert cold["models"] == [version.replace("/", "_")]
    assert cold["load_s"] > 0
    assert len(cold["requests_ms"]) == 10
    assert min(cold["requests_ms"]) > 1
    assert told["failures"] == 0
    assert told["server"]["models"], told["server"]["notes"]


def test_layers_are_set_side_by_side(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """An endpoint costs more than the model behind it, which both protocols reach."""
    env = sandbox.tao2serve("sandbox", "status", "--json").document
    model = f"street_{deployed['endpoint']['version']}"
    http = env["urls"]["triton_http"].removeprefix("http://")
    outcome = sandbox.tao2serve(
        "loadtest", "street", f"triton-http://{http}/{model}", f"triton-grpc://{env['urls']['triton_grpc']}/{model}",
        "--layers", "--images", pictures()[0], "-o", tmp_path, *SHORT,
    )  # fmt: skip
    layers = outcome.assert_success().document["layers"]
    assert [layer["target"]["protocol"] for layer in layers] == ["endpoint", "triton-http", "triton-grpc"]
    assert all(layer["failures"] == 0 < layer["requests"] for layer in layers)
    assert layers[0]["added_ms"] > 0
    assert json.loads((tmp_path / "layers.json").read_text(encoding="utf-8"))["layers"] == layers
