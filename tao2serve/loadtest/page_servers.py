"""What the page says of the servers during the run time: Triton's counters, GPUs, processes, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tao2serve.loadtest.page_words import sentence
from tao2serve.loadtest.plan import Target
from tao2serve.loadtest.servers import ServerSide
from tao2serve.loadtest.triton_counts import ModelCounts

__all__ = ["ServerTables", "server_tables"]

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTables:
    """Cells of the tables, empty where nothing is known."""

    span: str
    model_heads: list[str]
    models: list[list[str]]  # model, of several targets those that it answers, requests, batches, queue …
    processes: list[list[str]]  # server, CPU, memory
    gpus: list[list[str]]  # GPU, utilisation, memory, power
    notes: list[str]


def server_tables(server: ServerSide | None, targets: Sequence[Target]) -> ServerTables | None:
    """Return None if nobody looked, or nothing was seen and nothing is to be said."""
    if server is None or not (server.models or server.processes or server.gpus or server.notes):
        return None
    processes = [
        [
            f"{used.role} at {used.address}", f"{used.cpu_cores:.2f} cores", _mib(used.rss_mean_bytes),
            _mib(used.rss_max_bytes),
        ]
        for used in server.processes
    ]  # fmt: skip
    if server.machine is not None:
        machine = server.machine
        busy = machine.cpu_ratio * machine.cpus
        processes.append(["this machine, all in all", f"{busy:.2f} of {machine.cpus} cores", "–", "–"])
    return ServerTables(
        span=f"{server.span_s:.1f} s of the run time",
        model_heads=[
            "Triton model",
            *(["Target"] if len(targets) > 1 else []),
            "Requests",
            "Failures",
            "Batch",
            "queue",
            "input",
            "compute",
            "output, ms",
        ],
        models=[
            [
                model.name,
                *([_asked_by(model, targets)] if len(targets) > 1 else []),
                f"{model.requests:,}",
                f"{model.failures:,}",
                _batches(model.batch_size, model.batch_sizes),
                *(f"{value:.2f}" for value in (model.queue_ms, model.input_ms, model.infer_ms, model.output_ms)),
            ]
            for model in server.models
        ],
        processes=processes,
        gpus=[
            [
                f"{gpu.gpu} ({gpu.source})",
                *_mean_and_max(gpu.utilisation_ratio_mean, gpu.utilisation_ratio_max, factor=100, unit="%"),
                *_mean_and_max(gpu.memory_used_bytes_mean, gpu.memory_used_bytes_max, factor=1 / _MIB, unit="MiB"),
                *_mean_and_max(gpu.power_w_mean, gpu.power_w_max, factor=1, unit="W"),
            ]
            for gpu in server.gpus
        ],
        notes=[sentence(note) for note in server.notes],
    )


def _asked_by(model: ModelCounts, targets: Sequence[Target]) -> str:
    return ", ".join(dict.fromkeys(targets[index].label for index in model.targets)) or "not known"


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"


def _mean_and_max(mean: float | None, largest: float | None, *, factor: float, unit: str) -> list[str]:
    return ["–" if value is None else f"{value * factor:,.0f} {unit}" for value in (mean, largest)]


def _batches(mean: float, sizes: Iterable[tuple[int, int]]) -> str:
    largest = max((size for size, _ in sizes), default=0)
    if not mean:
        return "–"
    return f"{mean:.2f}, at most {largest}" if largest > 1 else f"{mean:.2f}"
