"""Watches the servers while a load test runs: what Triton counts, GPUs, and processes on this machine.

When the run time begins and ends is known only afterwards, so everything is read about twice a second, and the
figures are the differences between the first and the last reading inside the run time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.loadtest.addresses import bracketed, is_loopback, place_of
from tao2serve.loadtest.behind import attributed, prefixes, triton_grpc, unknown_models
from tao2serve.loadtest.gpus import GpuReading, GpuUse, TritonMetrics, gpus_on_page, nvml_reader, used_gpus
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.processes import (
    MachineUse,
    ProcessUse,
    Reading,
    ServingProcesses,
    listeners,
    used_by_machine,
    used_by_processes,
)
from tao2serve.loadtest.records import RunRecords
from tao2serve.loadtest.sampling import Sampled, inside
from tao2serve.loadtest.triton_counts import Counters, ModelCounts, TritonCounters, Version, counted_between

__all__ = [
    "ServerSide",
    "ServerWatch",
    "addresses_of",
    "gpu_reader",
    "watched_servers",
    "with_triton",
]

_EVERY_S: Final = (0.1, 0.5)  # at least and at most, between two readings
_ASK_S: Final = 2.0
_METRICS_PORT: Final = 8002  # Triton's own default
_SLACK_S: Final = 0.1  # between a request's end here and on Triton, and for the time that a reading takes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSide:
    """What the servers did from `begin_s` of the run time on, for `span_s`; `notes` say what is not known, and why."""

    span_s: float  # 0: too short a run to tell
    begin_s: float = 0.0
    models: tuple[ModelCounts, ...] = ()
    gpus: tuple[GpuUse, ...] = ()
    processes: tuple[ProcessUse, ...] = ()
    machine: MachineUse | None = None  # None: no server runs here
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "span_s": round(self.span_s, 3),
            "begin_s": round(self.begin_s, 3),
            "models": [model.to_dict() for model in self.models],
            "gpus": [gpu.to_dict() for gpu in self.gpus],
            "processes": [process.to_dict() for process in self.processes],
            "machine": self.machine.to_dict() if self.machine else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gpus:
    readings: Sampled[dict[str, GpuReading]]
    source: str


@dataclass(slots=True, kw_only=True)
class ServerWatch:
    """What has been read so far."""

    plan: LoadPlan
    notes: list[str] = field(default_factory=list)
    triton: Sampled[dict[Version, Counters]] | None = None
    gpus: _Gpus | None = None
    servers: list[tuple[ServingProcesses, Sampled[Reading]]] = field(default_factory=list)

    def during(self, run: RunRecords) -> ServerSide:
        """Return what the servers did within the run time of a run that was watched from before it until after it."""
        notes = list(self.notes)
        window = (run.window_start_s, run.window_start_s + run.run_time_s)
        models, counted_span = self._counted(run, window, notes)
        gpus: tuple[GpuUse, ...] = ()
        if self.gpus is not None:
            readings = inside(self.gpus.readings.samples, *window)
            gpus = used_gpus([sample.value for sample in readings], source=self.gpus.source)
            if not gpus:
                notes.append(_unread(f"GPU figures of {self.gpus.source}", self.gpus.readings))
        processes, machine, used_span = self._used(window, notes)
        begin_s, end_s = counted_span or used_span or (window[0], window[0])
        return ServerSide(
            span_s=end_s - begin_s, begin_s=begin_s - window[0], models=models, gpus=gpus, processes=processes,
            machine=machine, notes=tuple(dict.fromkeys(notes)),
        )  # fmt: skip

    def _counted(
        self, run: RunRecords, window: tuple[float, float], notes: list[str]
    ) -> tuple[tuple[ModelCounts, ...], tuple[float, float] | None]:
        """Return what Triton counted, and from when to when."""
        if self.triton is None:
            return (), None
        counted = inside(self.triton.samples, *window)
        if self.triton.problem or not counted:
            notes.append(_unread("Triton's statistics", self.triton))
        if not counted:
            return (), None
        span = (counted[0].at_s, counted[-1].at_s)
        found, said = counted_between(counted[0].value, counted[-1].value)
        models, mixed = attributed(found, self.plan)
        notes += [*said, *mixed, *_strangers(models, run, span)]
        if not models and not said:
            notes.append(f"Triton counted no request of {', '.join(prefixes(self.plan)) or 'any model'}")
        return models, span

    def _used(
        self, window: tuple[float, float], notes: list[str]
    ) -> tuple[tuple[ProcessUse, ...], MachineUse | None, tuple[float, float] | None]:
        """Return what each server on this machine used, what the machine did, and from when to when."""
        processes, machine, span = [], None, None
        for server, sampled in self.servers:
            used = inside(sampled.samples, *window)
            if used:
                processes.append(used_by_processes(server, used))
                machine = machine or used_by_machine(used)
                span = span or (used[0].at_s, used[-1].at_s)
            if sampled.problem or not used:
                notes.append(_unread(f"CPU and memory of {server.role} at {server.address}", sampled))
        return tuple(processes), machine, span


def _unread(subject: str, sampled: Sampled[Any]) -> str:
    why = sampled.problem or "the run time is too short for two readings"
    return f"{subject}: {why}"


def _strangers(models: Sequence[ModelCounts], run: RunRecords, span: tuple[float, float]) -> list[str]:
    """Say so if Triton answered more requests than were open at any time of the span: somebody else asks it too."""
    begin_s, end_s = (at_s - run.window_start_s for at_s in span)
    known = {target for model in models for target in model.targets}
    open_then = sum(
        1
        for record in run.requests
        if record.end_s >= begin_s - _SLACK_S and record.start_s <= end_s + _SLACK_S
        if not known or record.target in known
    )
    roots = [model for model in models if not any(model.name.startswith(f"{other.name}_") for other in models)]
    counted = sum(model.requests for model in roots)
    if counted <= open_then:
        return []
    return [f"Triton answered {counted} requests while this load test had {open_then} open: others ask it too"]


@contextlib.contextmanager
def watched_servers(plan: LoadPlan) -> Iterator[ServerWatch]:
    """Read what the servers of a plan do until the block ends; what cannot be read becomes a note, never an error."""
    every_s = min(max(plan.run_time_s / 20, _EVERY_S[0]), _EVERY_S[1])
    watch = ServerWatch(plan=plan)
    with contextlib.ExitStack() as stack:
        _watch_triton(watch, stack, every_s)
        _watch_gpus(watch, stack, every_s)
        _watch_processes(watch, stack, every_s)
        yield watch


def with_triton(plan: LoadPlan, *, configured: str = "") -> LoadPlan:
    """Return the plan with the gRPC address of its triton-http target, which alone tells statistics, if it is found.

    That is the configured one if it is of the same host, else the port after the HTTP one, as Triton's own defaults
    are; either only if the model is ready there: another Triton's counters would be taken for this one's.
    """
    over_http = next((target for target in plan.targets if target.protocol == "triton-http"), None)
    if over_http is None or triton_grpc(plan):
        return plan
    host, port = place_of(over_http.url)
    theirs = place_of(configured)[0]
    is_same = theirs == host or (is_loopback(theirs) and is_loopback(host))
    for address in (configured if is_same else "", f"{bracketed(host)}:{port + 1}"):
        if address and _serves(address, over_http.model):
            return replace(plan, triton=address)
    return plan


def _serves(address: str, model: str) -> bool:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client: Any = InferenceServerClient(address)
    try:
        return bool(client.is_model_ready(model, client_timeout=_ASK_S))
    except InferenceServerException:
        return False
    finally:
        client.close()


def _watch_triton(watch: ServerWatch, stack: contextlib.ExitStack, every_s: float) -> None:
    address = triton_grpc(watch.plan)
    if not address:
        watch.notes.append("Triton's address is not known: nothing is told of its queue and models")
        return
    watch.notes += unknown_models(watch.plan)
    counters = TritonCounters(address, prefixes(watch.plan))
    stack.callback(counters.close)
    watch.triton = stack.enter_context(Sampled(counters.read, every_s=every_s))


def _watch_gpus(watch: ServerWatch, stack: contextlib.ExitStack, every_s: float) -> None:
    """Take Triton's metrics if they name a GPU, else NVML if Triton runs here; without a GPU nothing is claimed."""
    read, source, notes = gpu_reader(watch.plan)
    watch.notes += notes
    if read is not None:
        watch.gpus = _Gpus(readings=stack.enter_context(Sampled(read, every_s=every_s)), source=source)


def gpu_reader(plan: LoadPlan) -> tuple[Callable[[], dict[str, GpuReading]] | None, str, list[str]]:
    """Return what reads the GPUs and its name, or None; and notes on a page that was named and cannot be had."""
    notes = []
    host, _ = place_of(triton_grpc(plan))
    # Where no page is named, the usual port may be that of another Triton: its page must name a model of ours.
    url = plan.triton_metrics or (f"http://{bracketed(host)}:{_METRICS_PORT}/metrics" if host else "")
    if url:
        metrics = TritonMetrics(url)
        try:
            page = metrics.page()
        except ServiceError as error:
            if plan.triton_metrics:
                notes.append(f"{error.subject} {error.fact} ({error.evidence})")
        else:
            named = (f'model="{name}{end}' for name in prefixes(plan) for end in '"_')
            ours = bool(plan.triton_metrics) or any(words in page for words in named)
            if ours and gpus_on_page(page):
                return metrics.read, "Triton's metrics", []
    if is_loopback(host) and (read := nvml_reader()) is not None:
        return read, "NVML", notes
    return None, "", notes


def _watch_processes(watch: ServerWatch, stack: contextlib.ExitStack, every_s: float) -> None:
    """Find the processes behind every address of the plan that is on this machine."""
    seen: set[tuple[int, ...]] = set()
    for host, port, role in addresses_of(watch.plan):
        if not is_loopback(host):
            watch.notes.append(f"{role} at {host}:{port} is not on this machine's loopback: nothing is told of it")
            continue
        roots, why = listeners(port)
        if not roots:
            watch.notes.append(f"CPU and memory of {role}: {why}")
        elif roots not in seen:
            seen.add(roots)
            server = ServingProcesses(role=role, address=f"{host}:{port}", roots=roots)
            watch.servers.append((server, stack.enter_context(Sampled(server.read, every_s=every_s))))


def addresses_of(plan: LoadPlan) -> list[tuple[str, int, str]]:
    """Return each address of the plan once, and what answers there."""
    found: dict[tuple[str, int], str] = {}
    for target in plan.targets:
        found.setdefault(place_of(target.url), "endpoint" if target.protocol == "endpoint" else "Triton")
    if plan.triton:
        found.setdefault(place_of(plan.triton), "Triton")
    return [(host, port, role) for (host, port), role in found.items()]
