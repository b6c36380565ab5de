"""What a candidate must hold, which options go together, and for which model tuned settings are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loadtest_samples import plan, record, result

from tao2serve.artifact_request import ArtifactRequest
from tao2serve.cli.load_options import Load
from tao2serve.cli.tune_job import tune_job
from tao2serve.config import Settings
from tao2serve.deployment.job import check_tuned
from tao2serve.deployment.request import DeployRequest
from tao2serve.errors import UsageError
from tao2serve.loadtest import ClosedLoop, LoadResult, OpenLoop, parse_gate
from tao2serve.loadtest.hardware import NO_GPU
from tao2serve.loadtest.processes import ProcessUse
from tao2serve.loadtest.servers import ServerSide
from tao2serve.registry.source import ResolvedSource, Source
from tao2serve.tao.source import sha256_of
from tao2serve.tuned import Tuned
from tao2serve.tuning.candidate import Candidate
from tao2serve.tuning.run import Limits, check_limits, measurement_of, objective_of
from tao2serve.tuning.trials import settings_of

CANDIDATE = Candidate(placement="endpoint", instances=1, max_batch_size=4, queue_delay_us=0)
MIB = 2**20


def measured(rss_bytes: float | None, **limits: Any) -> Any:
    found: LoadResult = result([record(start_s=index / 10, latency_ms=20.0) for index in range(50)])
    uses = () if rss_bytes is None else (
        ProcessUse(role="endpoint", address="a:1", pids=(1,), cpu_cores=1, rss_mean_bytes=9e9, rss_max_bytes=9e9),
        ProcessUse(role="Triton", address="a:2", pids=(2,), cpu_cores=1, rss_mean_bytes=1, rss_max_bytes=rss_bytes),
    )  # fmt: skip
    side = ServerSide(span_s=1.0, processes=uses)
    return measurement_of(CANDIDATE, 0, replace(found, server=side), Limits(**limits))


def test_gates_and_memory_must_hold() -> None:
    """Triton's memory counts, not the endpoint's; each that is missed is named, by how much."""
    good = measured(500 * MIB, gates=(parse_gate("p99=50ms"),), memory_bytes=600 * MIB)
    assert (good.holds, good.memory_bytes) == (True, 500 * MIB)
    bad = measured(700 * MIB, gates=(parse_gate("p99=5ms"),), memory_bytes=600 * MIB)
    assert not bad.holds
    assert "p99=5ms was missed" in bad.reasons[0]
    assert bad.reasons[1] == "memory of Triton is 700 MiB, 100 MiB beyond its limit"


def test_a_limit_on_what_was_not_measured_does_not_hold() -> None:
    """Triton on another machine, or no GPU: a limit that nobody can look at is no limit that holds."""
    assert measured(None).holds
    assert not measured(None, memory_bytes=600 * MIB).holds
    assert not measured(500 * MIB, gpu_memory_bytes=600 * MIB).holds


def test_a_limit_that_nobody_can_judge_is_refused_before_the_work() -> None:
    """Not after minutes of load, when no candidate held it."""
    here, gpu, elsewhere = {"cpu_count": "2", "gpu": NO_GPU}, {"cpu_count": "2", "gpu": "Tesla T4"}, {"gpu": NO_GPU}
    check_limits(Limits(memory_bytes=MIB), here)
    check_limits(Limits(memory_bytes=MIB, gpu_memory_bytes=MIB), gpu)
    check_limits(Limits(), elsewhere)
    with pytest.raises(UsageError, match="--gpu-memory-limit cannot be judged"):
        check_limits(Limits(gpu_memory_bytes=MIB), here)
    with pytest.raises(UsageError, match="--memory-limit cannot be judged"):
        check_limits(Limits(memory_bytes=MIB), elsewhere)


def test_a_saturated_client_judges_nothing() -> None:
    """Its gates are not missed by the candidate: only the reason says why it does not hold."""
    found = result([record(start_s=index / 10, latency_ms=20.0) for index in range(50)])
    client = replace(found.client, saturated=True, reason="it woke late")
    seen = measurement_of(CANDIDATE, 1, replace(found, client=client), Limits(gates=(parse_gate("p99=5ms"),)))
    assert (seen.holds, seen.reasons, seen.why_not) == (False, (), ("it woke late",))


def test_a_rate_is_tuned_for_latency_and_users_for_throughput() -> None:
    """At a rate that is given all have the same throughput."""
    assert objective_of(replace(plan(), shape=OpenLoop(rate_rps=5))) == "p99"
    assert objective_of(replace(plan(), shape=ClosedLoop(users=5))) == "throughput"


def test_preferred_batches_beyond_a_candidates_largest_are_left_out() -> None:
    """Triton refuses them; the others stay."""
    settings = settings_of(CANDIDATE, Settings(preferred_batch_sizes="2,4,8", deadline_s=3.0))
    assert (settings.preferred_batch_sizes, settings.max_batch_size, settings.deadline_s) == ("2,4", 4, 3.0)


OPTIONS: dict[str, Any] = {
    "tune": True, "load": Load(loads=(ClosedLoop(users=2),)), "endpoints": ["street"], "gates": (), "values": None,
    "memory_limit": None, "gpu_memory_limit": None, "blocks": None, "output": Path("o"), "others": {"--layers": False},
}  # fmt: skip


def test_options_of_a_tuning() -> None:
    """Sizes with their units, three blocks by default; without --tune there is no job."""
    job = tune_job(**OPTIONS | {"memory_limit": "1.5GiB", "gpu_memory_limit": "500MB"})
    assert job is not None
    assert (job.memory_bytes, job.gpu_memory_bytes, job.blocks) == (1536 * MIB, 500_000_000, 3)
    assert tune_job(**OPTIONS | {"tune": False}) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tune": False, "values": ["instances=1"]}, "--try"),
        ({"tune": False, "memory_limit": "1GiB"}, "--memory-limit"),
        ({"others": {"--layers": True}}, "--layers"),
        ({"load": Load(loads=(ClosedLoop(users=1), ClosedLoop(users=2)))}, "one load"),
        ({"endpoints": ["street", "people"]}, "one endpoint"),
        ({"endpoints": ["http://127.0.0.1/serve/street"]}, "by its name"),
        ({"blocks": 1}, "--blocks"),
        ({"values": ["moon=1"]}, "--try has 'moon=1'"),
        ({"values": ["instances=0"]}, "--try instances is '0'"),
        ({"memory_limit": "2"}, "not a size"),
        ({"memory_limit": "0GiB"}, "not a size"),
    ],
)
def test_options_that_make_no_tuning(options: dict[str, Any], said: str) -> None:
    """Each is refused before anything is measured."""
    with pytest.raises(UsageError) as caught:
        tune_job(**OPTIONS | options)
    assert said in f"{caught.value.subject} {caught.value.fact}"


def chosen(weights: Path) -> Any:
    from tao2serve.deployment.inputs import Chosen

    source = ResolvedSource(weights=weights, spec=None, trained=None, reason="named", sha256=sha256_of(weights))
    values: dict[str, Any] = dict.fromkeys(("spec", "params", "inputs"))
    return Chosen(source=source, spec_text="", image=b"", **values)


def test_tuned_settings_are_taken_for_the_same_weights_alone(tmp_path: Path) -> None:
    """Other weights, or another precision, are refused with what to do."""
    weights, other = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    weights.write_bytes(b"weights")
    other.write_bytes(b"others")
    made = Tuned(settings=CANDIDATE.settings(), source_sha256=sha256_of(weights), precision="fp32")
    request = DeployRequest(source=Source(text="x"), endpoint="street", tuned=made)
    assert "max_batch_size 4" in check_tuned(made, chosen(weights), request)
    with pytest.raises(UsageError, match="other weights") as caught:
        check_tuned(made, chosen(other), request)
    assert "loadtest street --tune" in caught.value.hint
    with pytest.raises(UsageError, match="another precision"):
        check_tuned(made, chosen(weights), replace(request, artifacts=ArtifactRequest(precision="fp16")))
