"""What hardware serves, in words that two runs can be told apart by: CPU and GPUs of the Triton that answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tao2serve.errors import ServiceError
from tao2serve.loadtest.addresses import place_of
from tao2serve.loadtest.gpus import gpu_names
from tao2serve.loadtest.machine import describe_machine
from tao2serve.loadtest.plan import ClosedLoop, LoadPlan, Target
from tao2serve.loadtest.servers import gpu_reader
from tao2serve.loadtest.serving_facts import is_here

__all__ = ["GPU", "NO_GPU", "serving_hardware"]

GPU: Final = "gpu"
NO_GPU: Final = "none seen"  # neither by NVML on this machine nor on Triton's page of metrics
_OF_MACHINE: Final = ("cpu_model", "cpu_count")


def serving_hardware(triton: str, models: Iterable[str] = ()) -> dict[str, str]:
    """Return `gpu`, and `cpu_model` and `cpu_count` if the Triton at HOST:PORT of gRPC runs on this machine.

    A GPU is told by its model where NVML tells it, else by its UUID, which is all that Triton's page of metrics says.
    `models` are some of that Triton's: only a page on the usual port that names one of them is taken for its own.
    """
    here = is_here(*place_of(triton))
    described = describe_machine() if here else {}
    names = gpu_names() if here else ""
    return {
        **{name: described[name] for name in _OF_MACHINE if name in described},
        GPU: names or _uuids(triton, models) or NO_GPU,
    }


def _uuids(triton: str, models: Iterable[str]) -> str:
    targets = [Target(url=triton, protocol="triton-grpc", model=model) for model in models]
    if not targets:
        return ""
    read, source, _ = gpu_reader(LoadPlan(targets=tuple(targets), images=Path(), shape=ClosedLoop(users=1)))
    try:
        found = sorted(read()) if read is not None else []
    except ServiceError:
        return ""
    return f"{', '.join(found)} (by {source}; model not known)" if found else ""
