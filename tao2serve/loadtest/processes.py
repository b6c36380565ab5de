"""CPU and memory of the serving processes that run on this machine, found by the ports they listen on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from tao2serve.errors import ServiceError
from tao2serve.loadtest.sampling import Sample

__all__ = [
    "MachineUse",
    "ProcessUse",
    "Reading",
    "ServingProcesses",
    "Spent",
    "listeners",
    "used_by_machine",
    "used_by_processes",
]

_FIND_EVERY_S: Final = 2.0  # looking for children reads the whole process table
_FORWARDERS: Final = ("docker-proxy", "rootlesskit", "slirp4netns")  # hold the port of a server in a container

Key: TypeAlias = tuple[int, float]  # pid, and when it began: pids are used again


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """One server over the span, with all its processes.

    Memory is the sum of resident sets: what processes share is in it once for each.
    """

    role: str  # endpoint | Triton
    address: str  # HOST:PORT it listens on
    pids: tuple[int, ...]
    cpu_cores: float  # mean number of cores kept busy
    rss_mean_bytes: float
    rss_max_bytes: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """This machine over the span, load generator and everything else included."""

    cpus: int
    cpu_ratio: float  # of all its CPUs

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """CPU seconds that a process has used since it began, and its resident set now."""

    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One server's processes, and the machine's CPU seconds (all CPUs together) since it was started."""

    processes: Mapping[Key, Spent]
    machine_busy_s: float
    machine_total_s: float


@dataclass(slots=True, kw_only=True)
class ServingProcesses:
    """The processes behind one address: those that listen there, and all their children."""

    role: str
    address: str
    roots: tuple[int, ...]
    _found_at_s: float = 0.0
    _known: dict[Key, Any] = field(default_factory=dict)

    def read(self) -> Reading:
        """Return what each process has used; raises ServiceError once none is there any more."""
        import psutil

        if time.monotonic() - self._found_at_s > _FIND_EVERY_S:
            self._known = self._find()
            self._found_at_s = time.monotonic()
        spent = {}
        for key, process in self._known.items():
            with contextlib.suppress(psutil.Error), process.oneshot():
                used = process.cpu_times()
                spent[key] = Spent(cpu_s=used.user + used.system, rss_bytes=process.memory_info().rss)
        if not spent:
            raise ServiceError(self.address, "has no process any more")
        times = psutil.cpu_times()
        # Linux counts time of guests in `user` too.
        total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        return Reading(processes=spent, machine_busy_s=total_s - idle_s, machine_total_s=total_s)

    def _find(self) -> dict[Key, Any]:
        import psutil

        found = {}
        for pid in self.roots:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                # Children of this very process are the load generator among others.
                children = root.children(recursive=True) if pid != os.getpid() else []
                for process in (root, *children):
                    with contextlib.suppress(psutil.Error):
                        found[process.pid, process.create_time()] = process
        return found


def listeners(port: int) -> tuple[tuple[int, ...], str]:
    """Return the processes that listen on a TCP port of this machine, or none and in words why."""
    import psutil

    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.Error as error:
        return (), f"this system does not tell who listens on port {port} ({type(error).__name__})"
    held = [one for one in listening if one.laddr and one.laddr.port == port]
    pids = {one.pid for one in held if one.pid}
    if not held:
        return (), f"no process listens on port {port} of this machine"
    if not pids:
        return (), f"the process on port {port} is another user's"
    forwarders = {pid for pid in pids if _name(pid) in _FORWARDERS}
    if forwarders == pids:
        return (), f"port {port} is passed on to a container, whose processes are not looked for"
    return tuple(sorted(pids - forwarders)), ""


def _name(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def used_by_processes(server: ServingProcesses, samples: Sequence[Sample[Reading]]) -> ProcessUse:
    """Return what a server used from the first to the last of two or more samples.

    A process that appears later began after the first; one that ends is counted as far as it was seen.
    """
    first: dict[Key, float] = {key: spent.cpu_s for key, spent in samples[0].value.processes.items()}
    last: dict[Key, float] = {}
    for sample in samples:
        last |= {key: spent.cpu_s for key, spent in sample.value.processes.items()}
    cpu_s = sum(used - first.get(key, 0.0) for key, used in last.items())
    memory = [sum(spent.rss_bytes for spent in sample.value.processes.values()) for sample in samples]
    return ProcessUse(
        role=server.role,
        address=server.address,
        pids=tuple(sorted({pid for pid, _ in last})),
        cpu_cores=round(cpu_s / (samples[-1].at_s - samples[0].at_s), 3),
        rss_mean_bytes=round(sum(memory) / len(memory)),
        rss_max_bytes=max(memory),
    )


def used_by_machine(samples: Sequence[Sample[Reading]]) -> MachineUse | None:
    """Return what all of this machine used from the first to the last of two or more samples."""
    import psutil

    first, last = samples[0].value, samples[-1].value
    total_s = last.machine_total_s - first.machine_total_s
    if total_s <= 0:
        return None
    ratio = (last.machine_busy_s - first.machine_busy_s) / total_s
    return MachineUse(cpus=psutil.cpu_count() or 1, cpu_ratio=round(min(max(ratio, 0.0), 1.0), 3))
