"""MLPerf's scenarios: the number each is read by."""

from __future__ import annotations

import pytest
from loadtest_samples import record, result

from tao2serve.errors import UsageError
from tao2serve.loadtest.scenarios import SCENARIOS, headline, scenario_of


@pytest.mark.parametrize(("name", "metric", "value"), [("single-stream", "p90", 90), ("server", "p99", 100)])
def test_a_latency_scenario_is_read_by_its_percentile(name: str, metric: str, value: float) -> None:
    """Single-stream by p90, server by p99, as in MLPerf."""
    found = result(record(second / 20, second + 1.0) for second in range(100))
    expected = {"name": name, "metric": metric, "value": pytest.approx(value, abs=1), "unit": "ms"}
    assert headline(scenario_of(name), found) == expected


def test_offline_is_read_by_its_throughput() -> None:
    """Answers per second."""
    found = result(record(second / 20, 5) for second in range(100))
    assert headline(scenario_of("offline"), found) == {
        "name": "offline", "metric": "throughput", "value": 10.0, "unit": "rps"
    }  # fmt: skip


def test_what_was_not_measured_is_none() -> None:
    """Not zero, which would be a good latency."""
    assert headline(SCENARIOS["server"], result([]))["value"] is None


def test_the_fourth_scenario_is_said_to_be_missing() -> None:
    """Multi-stream, in each of its spellings, gets a reason; other words the list."""
    for name in ("multi-stream", "MultiStream".lower(), "multi_stream"):
        with pytest.raises(UsageError) as caught:
            scenario_of(name)
        assert "one image a request" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        scenario_of("Server")
    assert caught.value.hint == "one of single-stream, server, offline"
