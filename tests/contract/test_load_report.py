"""Load tests on the task of the deployment that they tested, through the real SDK."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly")
pytestmark = pytest.mark.integration


def test_a_load_test_is_told_to_its_deployment(
    flow: Callable[..., dict[str, Any]], server: Any, tmp_path: Path
) -> None:
    """Figures, numbers and the report's files come to the ended task of that version, which stays completed.

    A second test stands beside the first, and so does a tuning; a version, endpoint or alias that no deployment
    made is told nothing. Of several deployments that name a version it is the one that made it, and not who came
    later.
    """
    seen = flow("load_report.py", str(tmp_path))
    assert seen["status"] == "completed"
    assert seen["environment"] == {
        "precision": "int8", "placement": "ensemble", "weights": "a.hdf5", "deployment_task": seen["task"],
        "tensorrt": "10.3", "deployed_by": "tao2serve 0.1", "clearml_serving": version("clearml-serving"),
    }  # fmt: skip
    one, series = "2026-09-21 14:13:20", "2026-09-21 14:14:20"
    plots = [tuple(plot) for plot in seen["plots"]]
    assert ("load test: Latency by percentile", one) in plots
    assert ("load test: Distribution of latency", one) in plots
    assert ("load test: Latency over load", series) in plots
    tests = [when for name, when in plots if name.startswith("load test: ")]
    assert tests.count(one) == tests.count(series) == 3
    assert sorted(name for name, _ in plots if name.startswith("tuning: ")) == [
        "tuning: Latency over answered rate, by setting", "tuning: The finals, block by block",
        "tuning: Throughput over memory",
    ]  # fmt: skip
    assert seen["values"]["tuning present requests per second"] == 60
    assert seen["values"]["tuning proposed requests per second"] == 98
    assert seen["values"]["load test p99 ms"] == seen["p99"] == 16
    assert seen["values"]["load test highest rate"] == 20
    assert len(seen["samples"]) == 7
    assert seen["samples"]["tuning.html"] > 1_000_000
    assert seen["samples"][f"{one} report.html"] > 1_000_000
    assert seen["unknown"] == [None] * 4
    server.assert_answered()
