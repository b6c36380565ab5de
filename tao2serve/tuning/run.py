"""A tuning from start to end: what is deployed, the candidates, the measurements, and what is left in the folder."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tao2serve import __version__
from tao2serve.config import Settings
from tao2serve.deployment.inputs import ELSEWHERE, digest_of, runtime_sha256
from tao2serve.deployment.site import open_site
from tao2serve.errors import UsageError
from tao2serve.loadtest import LoadPlan, LoadResult, evaluate, images_within, run_load_test
from tao2serve.loadtest.drawing import plotly
from tao2serve.loadtest.gates import reasons
from tao2serve.loadtest.hardware import GPU, NO_GPU, serving_hardware
from tao2serve.loadtest.locust_process import require_locust
from tao2serve.loadtest.machine import describe_machine
from tao2serve.loadtest.plan import digest_of as images_digest
from tao2serve.loadtest.plan import make_directory
from tao2serve.loadtest.serving_facts import triton_version
from tao2serve.serving.names import endpoint_and_version
from tao2serve.steps import Step, Steps, tell_aftermath
from tao2serve.tao.source import sha256_of
from tao2serve.tuning.candidate import Candidate, default_grid
from tao2serve.tuning.deployed import Deployed, read_deployed, version_to_tune
from tao2serve.tuning.measurement import Journal, Measurement
from tao2serve.tuning.outcome import Limits, Outcome, TuneRequest
from tao2serve.tuning.report import write_outcome
from tao2serve.tuning.search import Objective, tune
from tao2serve.tuning.skipped import skipped
from tao2serve.tuning.trials import RefusedError, Trials

__all__ = ["Limits", "Outcome", "TuneRequest", "check_limits", "check_tunable", "objective_of", "run_tuning"]

JOURNAL: Final = "measurements.jsonl"
_TRIES: Final = 2

RunLoad = Callable[[LoadPlan, Callable[[str], None]], LoadResult]


def objective_of(plan: LoadPlan) -> Objective:
    """At a given rate the throughput is given, so the latency counts; users in a loop show what can be had."""
    return "p99" if plan.is_open else "throughput"


def check_tunable(settings: Settings) -> None:
    """Raise UsageError where Triton is not ours to control, ToolError if locust or plotly is not installed."""
    require_locust()
    plotly()  # the page at the end of a long tuning needs it
    if settings.managed:
        raise UsageError("--tune", "needs a Triton of ours: ClearML Serving's own controller owns this one")


def check_limits(limits: Limits, hardware: Mapping[str, str]) -> None:
    """Raise UsageError for a limit on what cannot be measured: no candidate would hold it, after all the work."""
    if limits.gpu_memory_bytes is not None and hardware[GPU] == NO_GPU:
        raise UsageError(
            "--gpu-memory-limit", "cannot be judged: no GPU is seen, neither by NVML here nor by Triton's metrics",
            hint="leave it out, or see that Triton's metrics are to be had on port 8002",
        )  # fmt: skip
    if limits.memory_bytes is not None and "cpu_count" not in hardware:
        raise UsageError(
            "--memory-limit", "cannot be judged: Triton's processes are not on this machine",
            hint="leave it out, or tune where Triton runs",
        )  # fmt: skip


def run_tuning(request: TuneRequest, settings: Settings, *, steps: Steps, run: RunLoad | None = None) -> Outcome:
    """Measure candidates on versions that no alias routes to, propose settings, and leave nothing but files.

    Measurements of an earlier run of the same in the folder are taken from there. Raises UsageError where Triton is not
    ours to control, and as `Trials.put` and the load test do; what was measured until then is kept, which the
    error says.
    """
    check_tunable(settings)
    name, _ = endpoint_and_version(request.endpoint)
    at = datetime.now(UTC)
    images = images_within(request.plan.images)
    make_directory(request.directory)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao2serve-tune-")))
        with steps.step("read what is deployed") as step:
            site = open_site(name, settings, stack)
            deployed = read_deployed(version_to_tune(request.endpoint, site), site, settings)
            step.note(f"{name}/{deployed.endpoint.version}: {deployed.present}")
        triton = triton_version(site.host.control.address)
        hardware = serving_hardware(site.host.control.address, [deployed.endpoint.triton_model])
        check_limits(request.limits, hardware)
        journal = Journal(path=request.directory / JOURNAL, work=_work(request, deployed, images, hardware))
        bench = _Bench(
            request=request, deployed=deployed, journal=journal, steps=steps, stack=stack, run=run or _run,
            trials=Trials(
                deployed=deployed, site=site, settings=settings, image=images[0].read_bytes(), folder=folder
            ),
            triton=site.host.control.address,
        )  # fmt: skip
        grid = replace(default_grid(
            deployed.present, cpus=_cpus(hardware), largest_batch=_largest_batch(deployed)
        ), **request.values)  # fmt: skip
        found = len(journal)
        try:
            tuning = tune(
                grid, deployed.present, bench.measure, objective=objective_of(request.plan), blocks=request.blocks
            )
        except BaseException as error:
            _tell_kept(error, journal)
            raise
        if bench.begun:  # else all was measured before, and nothing was changed
            bench.trials.keep(tuning.to_dict())
    return write_outcome(Outcome(
        request=request, deployed=deployed, tuning=tuning, grid=grid, hardware=hardware, at=at, reused=found,
        skipped=skipped(
            grid, tuning, given=request.values, cpus=_cpus(hardware), largest_batch=_largest_batch(deployed)
        ),
        serving={"triton": triton}, generator=_generator(request, images),
    ))  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Bench:
    """Measures a candidate, or recalls what was measured; the trials are begun by the first that has to be."""

    request: TuneRequest
    deployed: Deployed
    journal: Journal
    trials: Trials
    triton: str
    steps: Steps
    stack: ExitStack
    run: RunLoad
    begun: bool = False

    def measure(self, candidate: Candidate, block: int) -> Measurement:
        known = self.journal.get(candidate, block)
        if known is not None and not known.saturated:
            return known
        turn = f", turn {block}" if block else ""
        with self.steps.step(f"measure {candidate}{turn}") as step:
            if not self.begun:
                self.stack.enter_context(self.trials)
                self.begun = True
            found = self._measured(candidate, block, step)
            self.journal.add(found)
            step.note(_said(found))
        return found

    def _measured(self, candidate: Candidate, block: int, step: Step) -> Measurement:
        try:
            endpoint = self.trials.put(candidate, on_news=step.news)
        except RefusedError as error:
            return Measurement(
                candidate=candidate, block=block, throughput_rps=0.0, p50_ms=None, p99_ms=None,
                reasons=(f"it does not load: {error}",),
            )  # fmt: skip
        plan = self.request.plan
        target = replace(plan.targets[0], url=endpoint.url)
        asked = replace(
            plan, targets=(target,), seed=plan.seed + block, endpoint=f"{endpoint.name}/{endpoint.version}",
            triton=self.triton, triton_model=endpoint.triton_model,
        )  # fmt: skip
        for _ in range(_TRIES):  # something else on the machine may have kept the load generator from its work
            result = self.run(asked, step.news)
            if not result.client.saturated:
                break
        return measurement_of(candidate, block, result, self.request.limits)


def measurement_of(candidate: Candidate, block: int, result: LoadResult, limits: Limits) -> Measurement:
    """Hold a load test against gates and limits; what was not measured does not hold its limit."""
    side, latency = result.server, result.latency_ms
    processes = [process.rss_max_bytes for process in side.processes if process.role == "Triton"] if side else []
    gpus = [gpu.memory_used_bytes_max for gpu in side.gpus if gpu.memory_used_bytes_max is not None] if side else []
    memory = int(max(processes)) if processes else None
    gpu_memory = int(max(gpus)) if gpus else None
    saturated = result.client.reason if result.client.saturated else ""
    # Gates on numbers of the load generator's own are not judged.
    found = [] if saturated else [*reasons(result, evaluate(result, limits.gates))]
    found += _beyond("memory of Triton", memory, limits.memory_bytes)
    found += _beyond("GPU memory", gpu_memory, limits.gpu_memory_bytes)
    return Measurement(
        candidate=candidate,
        block=block,
        throughput_rps=result.throughput_rps,
        p50_ms=latency.p50 if latency else None,
        p99_ms=latency.p99 if latency else None,
        requests=result.requests,
        failures=result.failures,
        memory_bytes=memory,
        gpu_memory_bytes=gpu_memory,
        reasons=tuple(found),
        saturated=saturated,
    )


def _beyond(what: str, used: int | None, limit: int | None) -> list[str]:
    if limit is None or (used is not None and used <= limit):
        return []
    if used is None:
        return [f"{what} is not known, so its limit is not judged"]
    return [f"{what} is {used / 2**20:.0f} MiB, {(used - limit) / 2**20:.0f} MiB beyond its limit"]


def _said(found: Measurement) -> str:
    p99 = f", p99 {found.p99_ms:.1f} ms" if found.p99_ms is not None else ""
    return f"{found.throughput_rps:.1f} answers/s{p99}{'' if found.holds else '; ' + found.why_not[0]}"


def _run(plan: LoadPlan, on_news: Callable[[str], None]) -> LoadResult:
    return run_load_test(plan, on_progress=lambda now: on_news(str(now)))


def _cpus(hardware: Mapping[str, str]) -> int | None:
    """Return how many CPUs serve; None if a GPU does, or nobody knows."""
    return int(hardware["cpu_count"]) if hardware[GPU] == NO_GPU and "cpu_count" in hardware else None


def _largest_batch(deployed: Deployed) -> int | None:
    return deployed.artifact.batches[1] if deployed.artifact.batches else None


def _generator(request: TuneRequest, images: Sequence[Path]) -> dict[str, str]:
    """Return what makes the load, as the page shows it."""
    machine, plan = describe_machine(), request.plan
    return {
        "CPU": machine.get("cpu_model", "not known"),
        "CPUs usable": machine.get("cpu_count", "not known"),
        "System": machine.get("system", "not known"),
        "Python": platform.python_version(),
        "locust": version("locust"),
        "tao2serve": __version__,
        "Images": str(len(images)),
        "Their digest": images_digest(images)[:16],
        "Order of the images": plan.order,
        "Processes": str(plan.processes),
        "Seed": str(plan.seed),
        "Timeout": f"{plan.timeout_s:g} s",
    }


def _work(request: TuneRequest, deployed: Deployed, images: Sequence[Path], hardware: Mapping[str, str]) -> str:
    """Return the digest of all that makes two measurements comparable."""
    plan, limits, settings = request.plan, request.limits, deployed.settings.model_dump(mode="json")
    return digest_of({
        "tao2serve": __version__,
        "runtime": runtime_sha256(),
        "model": deployed.artifact.sha256,
        "params": deployed.params.to_dict(),
        "settings": {name: value for name, value in settings.items() if name not in ELSEWHERE},
        "load": [str(plan.shape), plan.order, plan.seed, plan.processes],
        "times_s": [plan.run_time_s, plan.warmup_s, plan.timeout_s],
        "images": [(image.name, sha256_of(image)) for image in images],
        "limits": [[gate.text for gate in limits.gates], limits.memory_bytes, limits.gpu_memory_bytes],
        "hardware": dict(hardware),
        "load_generator": describe_machine(),
    })  # fmt: skip


def _tell_kept(error: BaseException, journal: Journal) -> None:
    if not len(journal):
        return
    count = f"{len(journal)} measurement{'' if len(journal) == 1 else 's'}"
    tell_aftermath(error, f"{count} kept in {journal.path}: the same command goes on from there")
