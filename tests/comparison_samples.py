"""Comparisons that nothing was run for: models with numbers that tests choose."""

from __future__ import annotations

from datetime import UTC, datetime

from tao2serve.comparison.candidates import Candidate
from tao2serve.comparison.compared import Compared, Comparison
from tao2serve.comparison.measure import Speed


def speed(latency_ms: float, *, first_ms: float | None = None) -> Speed:
    ratio = latency_ms / (first_ms or latency_ms)
    return Speed(
        latency_ms=latency_ms, quartiles_ms=(0.9 * latency_ms, 1.2 * latency_ms), throughput=1500 / latency_ms,
        of_first=ratio, of_first_quartiles=(0.95 * ratio, 1.05 * ratio), turns=100,
    )  # fmt: skip


def compared(
    letter: str, *, mean: float | None, latency_ms: float | None, name: str = "", why_not: str = ""
) -> Compared:
    classes = () if mean is None else (("car", mean), ("person", mean - 0.01))
    return Compared(
        candidate=Candidate(
            letter=letter, name=name or f"model_{letter}", named=letter, weights=None, spec=None, epoch=10,
            mean_average_precision=mean, average_precision=classes, metric_source="status.json" if mean else "",
        ),
        file_bytes=1_400_000,
        onnx_bytes=1_260_000,
        parameters=313_887,
        network="3x224x384, stride 16, fp32",
        speed=None if latency_ms is None else speed(latency_ms, first_ms=10.0),
        why_not=why_not,
    )  # fmt: skip


def comparison(*models: Compared, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison(
        models=models, machine=(("CPU", "AMD EPYC"), ("CPUs usable", "2"), ("Run by", "onnxruntime")),
        at=datetime(2026, 11, 26, 12, 0, tzinfo=UTC), notes=notes,
    )  # fmt: skip
