"""MLPerf's scenarios by their names: the shape each puts load in, and the number it is read by.

MLPerf Inference drives a model with LoadGen; we drive a service over the network, with locust. The shapes are
MLPerf's, the lengths of its runs are not: docs/loadtest.md says where they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tao2serve.errors import UsageError
from tao2serve.loadtest.plan import Arrivals, ClosedLoop, OpenLoop, Shape
from tao2serve.loadtest.result import LoadResult

__all__ = ["OFFLINE_USERS", "SCENARIOS", "Scenario", "ScenarioName", "headline", "scenario_of", "shape_of"]

ScenarioName: TypeAlias = Literal["single-stream", "server", "offline"]
# Enough in flight to fill two batches of 8 while two more wait; --users says otherwise.
OFFLINE_USERS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One of MLPerf's scenarios; `metric` is what it is read by, in a gate's words."""

    name: ScenarioName
    metric: str  # p90 | p99 | throughput
    meaning: str


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="single-stream", metric="p90", meaning="one user, who sends when the answer before is there"),
        Scenario(name="server", metric="p99", meaning="requests at Poisson times at a rate, whatever became of others"),
        Scenario(name="offline", metric="throughput", meaning="so many at once that the service is never idle"),
    )
}


def scenario_of(name: str) -> Scenario:
    """Return the scenario; raises UsageError for any other name."""
    for scenario in SCENARIOS.values():
        if scenario.name == name:
            return scenario
    hint = f"one of {', '.join(SCENARIOS)}"
    if name.replace("_", "").replace("-", "") == "multistream":
        hint += "; of MLPerf's four only multi-stream is not here: an endpoint takes one image a request"
    raise UsageError("--scenario", f"is {name!r}", hint=hint)


def shape_of(
    scenario: Scenario, *, users: int | None, rate_rps: float | None, arrivals: Arrivals | None, searched: bool
) -> Shape | None:
    """Return the scenario's shape, None where a search chooses the rate.

    Raises UsageError for what would make it another scenario, and for a server without a rate.
    """
    if scenario.name == "server":
        _refuse(scenario, users is not None, "--users", "leave it out: --rate 20")
        _refuse(scenario, arrivals == "constant", "--arrivals constant", "leave --scenario out")
        if rate_rps is not None:
            return OpenLoop(rate_rps=rate_rps, arrivals="poisson")
        if searched:
            return None
        raise UsageError(
            "--scenario server", "needs a rate", hint="--rate 20, or search it: --find-max --slo p99=100ms"
        )
    _refuse(scenario, rate_rps is not None, "--rate", "--scenario server has a rate")
    _refuse(scenario, searched, "--find-max", "--scenario server searches a rate")
    _refuse(scenario, arrivals is not None, "--arrivals", "--scenario server has arrivals")
    if scenario.name == "offline":
        return ClosedLoop(users=OFFLINE_USERS if users is None else users)
    _refuse(scenario, users not in (None, 1), f"--users {users}", "a single stream is one user")
    return ClosedLoop(users=1)


def _refuse(scenario: Scenario, refused: bool, option: str, hint: str) -> None:
    if refused:
        raise UsageError(f"--scenario {scenario.name}", f"does not go with {option}", hint=hint)


def headline(scenario: Scenario, result: LoadResult) -> dict[str, object]:
    """Return the `scenario` member of the document: its name and the number it is read by, None if not measured."""
    if scenario.metric == "throughput":
        value: float | None = result.throughput_rps
    else:
        value = result.latency_ms.to_dict()[scenario.metric] if result.latency_ms else None
    return {
        "name": scenario.name,
        "metric": scenario.metric,
        "value": None if value is None else round(value, 3),
        "unit": "rps" if scenario.metric == "throughput" else "ms",
    }
