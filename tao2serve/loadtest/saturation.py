"""Whether the load generator was the limit, from what its processes noted about themselves; pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from tao2serve.loadtest.machine import MachineSample
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.records import CpuSample, RequestRecord, RunRecords
from tao2serve.loadtest.result import ClientLoad

__all__ = ["LAG_LIMIT_MS", "client_load"]

# All greenlets of a process are one thread; beyond this part of a core, requests wait for it. Threads of gRPC may be as
# busy on another core and nothing waits; where they keep this one from running, it wakes late, which counts too.
_BUSY_RATIO = 0.9
# Well, the 99th percentile of lags is 1 to 3 ms, beside a busy server on two shared cores 5 to 17 ms, of a generator
# that has too little CPU 30 ms and more (docs/loadtest.md); where answers take long, a fifth of them is bearable, but
# never more than 100 ms: a generator that is late makes the answers longer that it is measured by.
LAG_LIMIT_MS = 20.0
_LAG_CEILING_MS = 100.0
_LAG_LIMIT_RATIO = 0.2
_LAG_NOTED_MS = 10.0
_FULL_MACHINE_RATIO = 0.95
_LOCAL = ("127.", "localhost", "[::1]")


def client_load(
    plan: LoadPlan,
    run: RunRecords,
    measured: Sequence[RequestRecord],
    *,
    cpu: Iterable[CpuSample],
    machine: Sequence[MachineSample],
) -> ClientLoad:
    """Return how the load generator was over the run time, and why its numbers are its own if they are.

    It was the limit if the thread that sends in one of its processes wanted 90 % of a core or more (used it, or waited
    for it) for most of the run time; if 1 % of the requests started late, or 1 % of its wake-ups came late, by more
    than 20 ms and more than a fifth of the median latency, or by more than 100 ms; or if it held requests back because
    too many were open.
    """
    end_s = run.window_start_s + run.run_time_s
    by_process: dict[int, list[CpuSample]] = {}
    for sample in cpu:
        if run.window_start_s <= sample.at_s <= end_s:
            by_process.setdefault(sample.process, []).append(sample)
    processes = [samples for samples in by_process.values() if len(samples) >= 2]
    lags_ms = sorted((record.start_s - record.intended_s) * 1000 for record in measured)
    late_ms = sorted(late for samples in processes for sample in samples[1:] for late in sample.late_ms)
    reasons = [
        *(_busy(samples) for samples in processes),
        _late(lags_ms, late_ms, _limit_ms(measured)),
        _held_back(run),
    ]
    reason = "; ".join(dict.fromkeys(filter(None, reasons)))
    full = _machine_ratio(machine, run.window_start_s, end_s)
    return ClientLoad(
        saturated=bool(reason),
        reason=f"{reason}: latency and throughput are its own, not the endpoint's" if reason else "",
        cpu_ratio=round(max(map(_used_ratio, processes)), 3) if processes else None,
        thread_cpu_ratio=round(max(map(_thread_ratio, processes)), 3) if processes else None,
        start_lag_p99_ms=_p99(lags_ms),
        wake_lag_p99_ms=_p99(late_ms),
        machine_cpu_ratio=full,
        warning="; ".join(filter(None, (_somewhat_late(lags_ms, late_ms), _crowded(plan, full)))),
    )


def _used_ratio(samples: Sequence[CpuSample]) -> float:
    return (samples[-1].used_s - samples[0].used_s) / (samples[-1].at_s - samples[0].at_s)


def _thread_ratio(samples: Sequence[CpuSample]) -> float:
    return (samples[-1].thread_s - samples[0].thread_s) / (samples[-1].at_s - samples[0].at_s)


def _busy(samples: Sequence[CpuSample]) -> str:
    """Name a process that used a core, or wanted one that others used, for most of the time."""
    total_s = busy_s = wanting_s = 0.0
    for before, after in itertools.pairwise(samples):
        wall_s, used_s = after.at_s - before.at_s, after.thread_s - before.thread_s
        wanted_s = used_s + after.waited_s - before.waited_s
        total_s += wall_s
        busy_s += wall_s if used_s >= _BUSY_RATIO * wall_s else 0.0
        wanting_s += wall_s if wanted_s >= _BUSY_RATIO * wall_s else 0.0
    most = f"{_BUSY_RATIO:.0%} of a core or more during"
    if busy_s > total_s / 2:
        return f"the load generator used {most} {busy_s / total_s:.0%} of the run time"
    if wanting_s > total_s / 2:
        wanted = f"the load generator wanted {most} {wanting_s / total_s:.0%} of the run time"
        return f"{wanted} and got {_thread_ratio(samples):.0%}, since others used its core"
    return ""


def _limit_ms(measured: Sequence[RequestRecord]) -> float:
    latencies_ms = sorted(record.latency_ms for record in measured if record.ok)
    median_ms = latencies_ms[len(latencies_ms) // 2] if latencies_ms else 0.0
    return min(max(LAG_LIMIT_MS, _LAG_LIMIT_RATIO * median_ms), _LAG_CEILING_MS)


def _late(lags_ms: Sequence[float], late_ms: Sequence[float], limit_ms: float) -> str:
    lag_ms, wake_ms = _p99(lags_ms) or 0.0, _p99(late_ms) or 0.0
    if lag_ms > limit_ms:
        return f"1 % of the requests started {lag_ms:.0f} ms late or more, {limit_ms:.0f} ms are bearable"
    if wake_ms > limit_ms:
        return f"the load generator woke {wake_ms:.0f} ms late or more 1 % of the time, {limit_ms:.0f} ms are bearable"
    return ""


def _somewhat_late(lags_ms: Sequence[float], late_ms: Sequence[float]) -> str:
    """Say of a lag that does not make a run worthless that it is in the figures."""
    most = max(_p99(lags_ms) or 0.0, _p99(late_ms) or 0.0)
    return f"the load generator was {most:.0f} ms late or more 1 % of the time" if most > _LAG_NOTED_MS else ""


def _held_back(run: RunRecords) -> str:
    if not run.capped:
        return ""
    return f"{run.capped} requests were held back, since a process had {run.open_limit} open"


def _p99(ascending: Sequence[float]) -> float | None:
    """By nearest rank, None of nothing."""
    return round(ascending[math.ceil(len(ascending) * 0.99) - 1], 3) if ascending else None


def _machine_ratio(machine: Sequence[MachineSample], start_s: float, end_s: float) -> float | None:
    inside = [sample for sample in machine if start_s <= sample.at_s <= end_s]
    if len(inside) < 2 or inside[-1].total_s <= inside[0].total_s:
        return None
    return round((inside[-1].busy_s - inside[0].busy_s) / (inside[-1].total_s - inside[0].total_s), 3)


def _crowded(plan: LoadPlan, full: float | None) -> str:
    """A full machine that also holds the server measures both; that is no fault of the generator alone."""
    hosts = [target.url.rpartition("://")[2] for target in plan.targets]
    if full is None or full < _FULL_MACHINE_RATIO or not any(host.startswith(_LOCAL) for host in hosts):
        return ""
    return (
        f"this machine's cores were {full:.0%} busy, and the endpoint shares them with the load generator: "
        "on a machine of its own it may be faster"
    )
