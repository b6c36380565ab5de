"""Tunings to test with, whose numbers are made up: no network, no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest_samples import plan

from tao2serve.loadtest import ClosedLoop, OpenLoop, parse_gate
from tao2serve.serving.service import EndpointVersion
from tao2serve.tuning.candidate import Candidate, Grid, default_grid
from tao2serve.tuning.deployed import Deployed
from tao2serve.tuning.measurement import Measurement
from tao2serve.tuning.outcome import Limits, Outcome, TuneRequest
from tao2serve.tuning.search import Objective, tune
from tao2serve.tuning.skipped import skipped
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

PRESENT = Candidate(placement="endpoint", instances=1, max_batch_size=8, queue_delay_us=0)
BEST = Candidate(placement="ensemble", instances=2, max_batch_size=4, queue_delay_us=0)
GRID = default_grid(PRESENT, cpus=2)
MIB = 2**20
UNLOADED = "it does not load: </script><script>alert(1)</script>"
_TENSOR = Tensor(name="t", datatype="FP32", shape=(1,))


def measured(candidate: Candidate, block: int) -> Measurement:
    """Ensembles and two instances are faster, and take more memory; of batches of one an ensemble does not load."""
    if candidate.max_batch_size == 1 and candidate.placement == "ensemble":
        return Measurement(
            candidate=candidate, block=block, throughput_rps=0.0, p50_ms=None, p99_ms=None, reasons=(UNLOADED,)
        )
    rate = 60.0 + 20 * (candidate.placement == "ensemble") + 15 * (candidate.instances == 2)
    rate += 3 * (candidate.max_batch_size == 4) - candidate.queue_delay_us / 200 + (0, 1, -1, 0)[block]
    p99 = 4000 / rate
    return Measurement(
        candidate=candidate, block=block, throughput_rps=rate, p50_ms=p99 / 2, p99_ms=p99, requests=500, failures=2,
        memory_bytes=(250 + 150 * (candidate.placement == "ensemble") + 80 * candidate.instances) * MIB,
        reasons=("p99=60ms was missed by 5 ms",) if p99 > 64 else (),
        saturated="it woke late" if (candidate.instances, block) == (2, 2) and candidate.queue_delay_us else "",
    )  # fmt: skip


def tuning_outcome(
    folder: Path,
    *,
    objective: Objective = "throughput",
    measure: Callable[[Candidate, int], Measurement] = measured,
    grid: Grid = GRID,
    given: Iterable[str] = (),
    name: str = "street",
    **limits: Any,
) -> Outcome:
    """What came of a tuning with three blocks, as if by the load that goes with the objective; nothing is written."""
    tuning = tune(grid, PRESENT, measure, objective=objective)
    artifact = ModelArtifact(
        format="onnx", path=Path("model.onnx"), sha256="ab" * 32, precision="fp32", source_sha256="cd" * 32,
        signature=ModelSignature(input=_TENSOR, coverage=_TENSOR, bbox=_TENSOR),
    )  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(("model", "params", "settings"))
    deployed = Deployed(
        endpoint=EndpointVersion(name=name, version=4, base_url="http://127.0.0.1/serve"), artifact=artifact, **nothing
    )
    shape = ClosedLoop(users=4) if objective == "throughput" else OpenLoop(rate_rps=20)
    gates = (parse_gate("p99=60ms"),)
    return Outcome(
        request=TuneRequest(
            endpoint=name, plan=replace(plan(), shape=shape), directory=folder, limits=Limits(gates=gates, **limits)
        ),
        deployed=deployed, tuning=tuning, grid=grid,
        skipped=skipped(grid, tuning, given=given, cpus=2, largest_batch=None),
        hardware={"cpu_model": "EPYC <b>", "cpu_count": "2", "gpu": "none seen"},
        serving={"triton": "2.51.0", "clearml_serving": "1.3.5", "deployment_task": "0" * 32},
        generator={"CPU": "EPYC", "CPUs usable": "2"}, at=datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC), reused=0,
    )  # fmt: skip
