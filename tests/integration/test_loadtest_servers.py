"""What a load test tells of the real servers behind an endpoint: Triton's counts, processes, and both accounts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import CommandLine, processes_of

from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, Target, run_load_test
from tao2serve.loadtest.breakdown import waterfall
from tao2serve.loadtest.servers import ServerSide
from tao2serve.sandbox.samples import pictures
from tao2serve.serving.names import triton_model_name

pytestmark = pytest.mark.integration
USERS = 2


@dataclass(frozen=True, slots=True)
class Watched:
    result: LoadResult
    model: str

    @property
    def server(self) -> ServerSide:
        assert self.result.server is not None
        return self.result.server


def watched(sandbox: CommandLine, document: dict[str, Any]) -> Watched:
    """Three seconds of load by two users on one version's own URL."""
    endpoint = document["endpoint"]
    model = triton_model_name(endpoint["name"], int(endpoint["version"]))
    state = json.loads((Path(sandbox.environment["TAO2SERVE_HOME"]) / "sandbox" / "state.json").read_text())
    plan = LoadPlan(
        targets=(Target(url=endpoint["url"]),), images=pictures()[0].parent, shape=ClosedLoop(users=USERS),
        run_time_s=3, warmup_s=0.5, triton=sandbox.environment["TAO2SERVE_TRITON_GRPC"], triton_model=model,
        triton_metrics=f"http://127.0.0.1:{state['ports']['triton_metrics']}/metrics",
    )  # fmt: skip
    return Watched(run_load_test(plan), model)


@pytest.fixture(scope="module")
def load(sandbox: CommandLine, deployed: dict[str, Any]) -> Watched:
    return watched(sandbox, deployed)


def test_triton_counts_the_requests_of_the_span(load: Watched) -> None:
    """As many as ended in it, give or take those that were on their way back at its two ends; no warm-up, no past."""
    side = load.server
    print(json.dumps(side.to_dict(), indent=1))
    (model,) = side.models
    ended = [
        record for record in load.result.records
        if record.ok and side.begin_s <= record.end_s <= side.begin_s + side.span_s
    ]  # fmt: skip
    assert model.name == load.model
    assert 2 <= side.span_s <= 3
    assert abs(model.requests - len(ended)) <= 2 * USERS
    assert sum(size * count for size, count in model.batch_sizes) == model.inferences == model.requests
    assert sum(count for _, count in model.batch_sizes) == model.executions
    assert model.failures == 0


def test_the_servers_found_are_the_sandboxs_own(load: Watched, sandbox: CommandLine) -> None:
    """By the ports alone: the inference service and Triton with the children of each, and nothing else."""
    own = {process.pid for process in processes_of(Path(sandbox.environment["TAO2SERVE_HOME"]))}
    found = {process.role: process for process in load.server.processes}
    assert set(found) == {"endpoint", "Triton"}
    assert set(found["endpoint"].pids) | set(found["Triton"].pids) <= own
    assert not set(found["endpoint"].pids) & set(found["Triton"].pids)
    names = {psutil.Process(pid).name() for pid in found["Triton"].pids}
    assert "tritonserver" in names
    assert len(found["Triton"].pids) > 1  # with the model's own process


def test_cpu_and_memory_are_plausible(load: Watched) -> None:
    """Both servers worked, not more than the machine has; Triton holds a network in memory; no GPU is claimed."""
    side = load.server
    assert side.machine is not None
    assert all(process.cpu_cores > 0.02 for process in side.processes)
    spent = sum(process.cpu_cores for process in side.processes)
    assert spent <= side.machine.cpus * side.machine.cpu_ratio * 1.2 + 0.2
    assert all(50e6 < process.rss_mean_bytes <= process.rss_max_bytes < 20e9 for process in side.processes)
    assert (side.gpus, side.notes) == ((), ())


def test_both_accounts_add_up(load: Watched) -> None:
    """The parts are the mean latency, Triton's lie inside `infer`, and nothing is unexplained."""
    parts = dict(waterfall(load.result.stages, load.server.models))
    print(parts)
    assert load.result.latency_ms is not None
    assert math.fsum(parts.values()) == pytest.approx(load.result.latency_ms.mean, rel=0.01)
    assert "unexplained" not in parts
    (model,) = load.server.models
    assert parts["compute"] == pytest.approx(model.infer_ms, rel=0.1)
    assert parts["preprocess"] > 0
    four = model.queue_ms + model.input_ms + model.infer_ms + model.output_ms
    assert four <= model.total_ms * 1.01


def test_an_ensembles_models_are_told_one_by_one(sandbox: CommandLine, whole: dict[str, Any]) -> None:
    """Each model of the deployment was asked as often as the ensemble, and the parts add up there too."""
    load = watched(sandbox, whole)
    models = {model.name.removeprefix(load.model): model for model in load.server.models}
    print(json.dumps(load.server.to_dict(), indent=1))
    assert set(models) == {"", "_detector", "_postprocess", "_preprocess"}
    counts = [model.requests for model in models.values()]
    assert max(counts) - min(counts) <= USERS
    parts = dict(waterfall(load.result.stages, load.server.models))
    print(parts)
    assert load.result.latency_ms is not None
    assert math.fsum(parts.values()) == pytest.approx(load.result.latency_ms.mean, rel=0.01)
    assert "unexplained" not in parts


def test_the_servers_are_described(load: Watched) -> None:
    """Triton's own version, and the CPU it shares with this load test."""
    said = load.result.environment
    assert said["triton"][0].isdigit()
    assert said["serving_cpu"] == said["cpu_model"]
