"""The machine that generates the load, for the report."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MachineSample", "describe_machine", "sample_machine"]


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return system, CPU model and the number of CPUs this process may use; unknown members are left out."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    described = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_model": _cpu_model(cpuinfo),
        "cpu_count": str(usable or ""),
    }
    return {name: value for name, value in described.items() if value}


def _cpu_model(cpuinfo: Path) -> str:
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSample:
    """CPU seconds of the whole machine, all of its cores together, at a moment of the monotonic clock."""

    at_s: float
    busy_s: float
    total_s: float


def sample_machine() -> MachineSample:
    """Return what the machine has done since it started."""
    import psutil

    times = psutil.cpu_times()
    # guest time is counted in user time already; waiting for a disk is not work
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    return MachineSample(at_s=time.monotonic(), busy_s=total_s - idle_s, total_s=total_s)
