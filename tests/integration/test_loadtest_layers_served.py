"""What an endpoint adds to the Triton behind it, on a deployment of the sandbox."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import CommandLine

from tao2serve.loadtest import LoadPlan, Target
from tao2serve.loadtest.layers import measure_layers
from tao2serve.sandbox.samples import SAMPLE

pytestmark = pytest.mark.integration


def test_an_endpoint_costs_more_than_the_triton_behind_it(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """Both answer the same pictures; Triton gets the detector's own input, made before the run, and the rest shows."""
    endpoint = deployed["endpoint"]
    model = f"{endpoint['name']}_{endpoint['version']}"
    triton = Target(url=sandbox.environment["TAO2SERVE_TRITON_GRPC"], protocol="triton-grpc", model=model)
    outer = Target(url=endpoint["url"])
    plan = LoadPlan(targets=(outer,), images=SAMPLE / "images", run_time_s=1.5, warmup_s=0.3)
    costs = measure_layers(plan, (outer, triton), blocks=1)
    assert [layer.failures for layer in costs.layers] == [0, 0]
    assert all(layer.requests > 5 for layer in costs.layers)
    added_ms = costs.added_ms(costs.layers[0])
    assert added_ms is not None
    assert added_ms > 1.0
    said = costs.layers[1].results[0].environment[f"sent to {triton.label}"]
    assert "scaled to that size (lanczos) before the run" in said
