"""The cost of layers: whose turn it is, and what is set side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loadtest_samples import plan, record, result

from tao2serve.errors import UsageError
from tao2serve.loadtest import LoadPlan, LoadResult, Target
from tao2serve.loadtest.layers import measure_layers
from tao2serve.loadtest.result import ClientLoad

ENDPOINT = Target(url="http://127.0.0.1:8080/serve/people/4")
HTTP = Target(url="127.0.0.1:8000", protocol="triton-http", model="people_4")
GRPC = Target(url="127.0.0.1:8001", protocol="triton-grpc", model="people_4")
LATENCIES_MS = {"endpoint": [40.0, 90.0, 42.0], "triton-http": [33.0, 32.0, 31.0], "triton-grpc": [30.0, 29.0, 99.0]}


class Runs:
    """Answers plans with one request each, whose latencies are the table's."""

    def __init__(self) -> None:
        self.seen: list[LoadPlan] = []

    def __call__(self, wanted: LoadPlan) -> LoadResult:
        protocol = wanted.targets[0].protocol
        turn = sum(1 for earlier in self.seen if earlier.targets[0].protocol == protocol)
        self.seen.append(wanted)
        return result([record(1.0, LATENCIES_MS[protocol][turn])])


def test_targets_take_turns() -> None:
    """Forwards and backwards, each for its share of the run time, with the plan's warm-up and shape."""
    runs = Runs()
    measure_layers(plan(run_time_s=9.0), (ENDPOINT, HTTP, GRPC), blocks=3, run=runs)
    there = ["endpoint", "triton-http", "triton-grpc"]
    assert [seen.targets[0].protocol for seen in runs.seen] == [*there, *reversed(there), *there]
    assert {(seen.run_time_s, seen.warmup_s, str(seen.shape)) for seen in runs.seen} == {
        (3.0, 1.0, "closed loop, 2 users")
    }


def test_each_layer_is_set_against_the_innermost() -> None:
    """A disturbed block moves nothing: the p50 is the median over blocks, and what is added is the difference."""
    costs = measure_layers(plan(), (ENDPOINT, HTTP, GRPC), run=Runs())
    rows = costs.to_dict()["layers"]
    assert isinstance(rows, list)
    assert [(row["layer"], row["p50_ms"], row["added_ms"]) for row in rows] == [
        ("/serve/people/4", 42.0, 12.0),
        ("triton-http people_4", 32.0, 2.0),
        ("triton-grpc people_4", 30.0, 0.0),
    ]
    assert rows[0]["blocks_p50_ms"] == [40.0, 90.0, 42.0]
    assert (rows[0]["requests"], rows[0]["failures"], rows[0]["saturated"]) == (3, 0, False)


def test_a_layer_without_an_answer_has_no_cost() -> None:
    """Nothing is compared with what was not measured, and its failures are counted."""

    def run(wanted: LoadPlan) -> LoadResult:
        return result([record(1.0, 5.0, error="timeout" if wanted.targets[0] == GRPC else "")])

    endpoint, grpc = measure_layers(plan(), (ENDPOINT, GRPC), blocks=2, run=run).to_dict()["layers"]  # type: ignore[misc]
    assert (endpoint["p50_ms"], endpoint["added_ms"]) == (5.0, None)
    assert (grpc["p50_ms"], grpc["failures"]) == (None, 2)


def test_a_saturated_client_is_said() -> None:
    """One block in which the load generator was the limit marks its layer."""

    def run(wanted: LoadPlan) -> LoadResult:
        client = ClientLoad(saturated=True, reason="no core left", cpu_ratio=1.0, start_lag_p99_ms=0.0)
        measured = result([record(1.0, 5.0)])
        return replace(measured, client=client) if wanted.targets[0] == HTTP else measured

    costs = measure_layers(plan(), (HTTP, GRPC), blocks=1, run=run)
    assert [layer.saturated for layer in costs.layers] == ["no core left", ""]


def test_there_must_be_something_to_compare() -> None:
    """One target, or no block, is refused before anything runs."""
    with pytest.raises(UsageError, match="too few"):
        measure_layers(plan(), (GRPC,))
    with pytest.raises(UsageError, match="not a number of blocks"):
        measure_layers(plan(), (HTTP, GRPC), blocks=0)
