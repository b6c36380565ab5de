"""`loadtest` on a deployed endpoint: its first requests after a load, and what its Triton did meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration


def test_a_cold_start_is_measured_apart(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """The model is loaded anew and answers again; the first requests have members of their own."""
    version = f"street/{deployed['endpoint']['version']}"
    told = sandbox.tao2serve(
        "loadtest", version, "--images", pictures()[0], "--cold-start", "--force",
        "--run-time", "1s", "--warmup", "0.5s", "-o", tmp_path, "--json",
    ).document  # fmt: skip
    cold = told["cold_start"]
    assert cold["models"] == [version.replace("/", "_")]
    assert cold["load_s"] > 0
    assert len(cold["requests_ms"]) == 10
    assert min(cold["requests_ms"]) > 1
    assert told["requests"] > told["failures"] == 0
    assert told["server"]["models"], told["server"]["notes"]
