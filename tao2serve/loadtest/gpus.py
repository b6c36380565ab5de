"""GPUs of the serving machine: from Triton's metrics page, or from NVML where Triton runs on this machine."""

from __future__ import annotations

import contextlib
import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tao2serve.errors import ServiceError

__all__ = ["GpuReading", "GpuUse", "TritonMetrics", "gpu_names", "gpus_on_page", "nvml_reader", "used_gpus"]

_TIMEOUT_S: Final = 2.0
# Families of Triton's metrics (docs/user_guide/metrics.md), and what they are here.
_FAMILIES: Final = {
    "nv_gpu_utilization": "utilisation_ratio",
    "nv_gpu_memory_used_bytes": "memory_used_bytes",
    "nv_gpu_power_usage": "power_w",
}
_LINE: Final = re.compile(r'^(\w+)\{[^}]*\bgpu_uuid="([^"]*)"[^}]*\}\s+(\S+)', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU at one moment; None is what the GPU or its driver does not tell."""

    utilisation_ratio: float | None = None
    memory_used_bytes: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """One GPU over the span: mean and maximum of what was read; None is what nobody told."""

    gpu: str  # its UUID
    source: str  # Triton's metrics | NVML
    utilisation_ratio_mean: float | None
    utilisation_ratio_max: float | None
    memory_used_bytes_mean: float | None
    memory_used_bytes_max: float | None
    power_w_mean: float | None
    power_w_max: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TritonMetrics:
    """Triton's page of metrics."""

    def __init__(self, url: str) -> None:
        self.url = url

    def page(self) -> str:
        """Return the page's text; raises ServiceError if it cannot be had."""
        import httpx

        try:
            response = httpx.get(self.url, timeout=_TIMEOUT_S, trust_env=False)
            response.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(self.url, "gives no metrics", evidence=f"{type(error).__name__}: {error}") from error
        return response.text

    def read(self) -> dict[str, GpuReading]:
        """Return each GPU by its UUID; raises ServiceError if the page cannot be had."""
        return gpus_on_page(self.page())


def gpus_on_page(text: str) -> dict[str, GpuReading]:
    """Return the GPUs that a page of Triton's metrics names, by UUID; what is no finite number is left out."""
    found: dict[str, dict[str, float]] = {}
    for family, gpu, text_value in _LINE.findall(text):
        with contextlib.suppress(ValueError):
            value = float(text_value)
            if family in _FAMILIES and math.isfinite(value):
                found.setdefault(gpu, {})[_FAMILIES[family]] = value
    return {gpu: GpuReading(**values) for gpu, values in found.items()}


def nvml_reader() -> Callable[[], dict[str, GpuReading]] | None:
    """Return what reads this machine's GPUs by NVML; None without pynvml (nvidia-ml-py), a driver or a GPU."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        names = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except nvml.NVMLError:
        return None
    if not handles:
        return None
    return lambda: {name: _nvml_reading(nvml, handle) for name, handle in zip(names, handles, strict=True)}


def gpu_names() -> str:
    """Return the names of this machine's GPUs by NVML, each as often as it is there; "" if unknown."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return ""
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        names = sorted(_text(nvml.nvmlDeviceGetName(handle)) for handle in handles)
    except nvml.NVMLError:
        return ""
    return ", ".join(names)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes in old releases


def _nvml_reading(nvml: Any, handle: Any) -> GpuReading:
    def told(read: Callable[[], float]) -> float | None:
        try:
            return float(read())
        except nvml.NVMLError:  # not every GPU tells everything, a MIG instance no utilisation
            return None

    return GpuReading(
        utilisation_ratio=told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        memory_used_bytes=told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
        power_w=told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
    )


def used_gpus(readings: Sequence[Mapping[str, GpuReading]], *, source: str) -> tuple[GpuUse, ...]:
    """Return mean and maximum over the readings, by GPU."""
    names = sorted({name for reading in readings for name in reading})
    return tuple(_use(name, [reading[name] for reading in readings if name in reading], source) for name in names)


def _use(gpu: str, readings: Sequence[GpuReading], source: str) -> GpuUse:
    def mean(values: Sequence[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return math.fsum(told) / len(told) if told else None

    def largest(values: Sequence[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    busy = [reading.utilisation_ratio for reading in readings]
    memory = [reading.memory_used_bytes for reading in readings]
    power = [reading.power_w for reading in readings]
    return GpuUse(
        gpu=gpu, source=source,
        utilisation_ratio_mean=mean(busy), utilisation_ratio_max=largest(busy),
        memory_used_bytes_mean=mean(memory), memory_used_bytes_max=largest(memory),
        power_w_mean=mean(power), power_w_max=largest(power),
    )  # fmt: skip
