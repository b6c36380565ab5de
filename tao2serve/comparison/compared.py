"""Models side by side, as values: what is known of each, what was measured here, and by what means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tao2serve.comparison.candidates import Candidate
from tao2serve.comparison.measure import Speed

__all__ = ["Compared", "Comparison", "columns_of", "sentence", "table_of", "why_not"]

UNKNOWN = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One model; what could not be found or measured is None, and `why_not` says why."""

    candidate: Candidate
    file_bytes: int | None = None
    onnx_bytes: int | None = None
    parameters: int | None = None
    network: str = ""
    speed: Speed | None = None
    why_not: str = ""

    @property
    def letter(self) -> str:
        return self.candidate.letter

    def to_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        candidate = self.candidate
        trained = candidate.trained
        return {
            "letter": candidate.letter,
            "name": candidate.name,
            "named": candidate.named,
            "model_id": trained.model_id if trained else None,
            "task_id": trained.task_id if trained else None,
            "task_name": trained.task_name if trained else None,
            "pruned": candidate.pruned,
            "epoch": candidate.epoch,
            "mean_average_precision": candidate.mean_average_precision,
            "average_precision": dict(candidate.average_precision),
            "metric_source": candidate.metric_source,
            "network": self.network,
            "parameters": self.parameters,
            "file_bytes": self.file_bytes,
            "onnx_bytes": self.onnx_bytes,
            "speed": self.speed.to_dict() if self.speed else None,
            "why_not": self.why_not,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of them, the machine that ran them, and what its reader must know."""

    models: tuple[Compared, ...]
    machine: tuple[tuple[str, str], ...]
    at: datetime
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[Compared, ...]:
        return tuple(model for model in self.models if model.speed is not None)

    @property
    def drawn(self) -> tuple[Compared, ...]:
        """The models that have a place in the plot: with a latency and an mAP."""
        return tuple(m for m in self.measured if m.candidate.mean_average_precision is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document, without where it was written to."""
        return {
            "outcome": "ok",
            "models": [model.to_dict() for model in self.models],
            "machine": dict(self.machine),
            "at": self.at.isoformat(timespec="seconds"),
            "summary": sentence(self),
            "notes": list(self.notes),
        }


def columns_of(comparison: Comparison) -> list[str]:
    """Return the head of the table: letter and name of each."""
    return [f"{model.letter}  {model.candidate.name}" for model in comparison.models]


def table_of(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return the rows of the table, what it is and its value for each model; rows that nobody has are left out."""
    models = comparison.models
    classes = sorted({name for model in models for name, _ in model.candidate.average_precision})
    rows: list[tuple[str, list[str]]] = [
        ("pruned", [{True: "yes", False: "no", None: UNKNOWN}[m.candidate.pruned] for m in models]),
        ("epoch", [_text(m.candidate.epoch) for m in models]),
        ("mAP in %", [_percent(m.candidate.mean_average_precision) for m in models]),
        *((f"AP in %, {name}", [_percent(dict(m.candidate.average_precision).get(name)) for m in models])
          for name in classes),
        ("read from", [m.candidate.metric_source or UNKNOWN for m in models]),
        ("network", [m.network or UNKNOWN for m in models]),
        ("parameters", [_text(m.parameters) for m in models]),
        ("file, MB", [_megabytes(m.file_bytes) for m in models]),
        ("as ONNX, MB", [_megabytes(m.onnx_bytes) for m in models]),
        ("latency, ms", [f"{m.speed.latency_ms:.2f}" if m.speed else UNKNOWN for m in models]),
        ("quartiles, ms", [
            f"{m.speed.quartiles_ms[0]:.2f} … {m.speed.quartiles_ms[1]:.2f}" if m.speed else UNKNOWN for m in models
        ]),
        ("throughput, images/s", [f"{m.speed.throughput:,.1f}" if m.speed else UNKNOWN for m in models]),
        (f"latency over {comparison.measured[0].letter if comparison.measured else 'A'}'s",
         [_ratio(m.speed) for m in models]),
        ("run", [m.candidate.trained.task_name if m.candidate.trained else UNKNOWN for m in models]),
        ("model id", [m.candidate.trained.model_id if m.candidate.trained else UNKNOWN for m in models]),
    ]  # fmt: skip
    return [(name, values) for name, values in rows if any(value != UNKNOWN for value in values)]


def sentence(comparison: Comparison) -> str:
    """Say which is the most accurate and which the fastest, and what one costs in the other.

    What is not told apart by the speeds that were seen is not called faster.
    """
    drawn = comparison.drawn
    if len(drawn) < 2:
        return ""
    best = max(drawn, key=lambda m: (_map(m), -_latency(m)))
    fastest, second = sorted(drawn, key=lambda m: (_latency(m), -_map(m)))[:2]
    if best is fastest:
        if not _is_faster(fastest, second):
            return f"{best.letter} is the most accurate; whether it is faster than {second.letter} cannot be told here"
        return f"{best.letter} is the most accurate and the fastest here"
    if not _is_faster(fastest, best):
        return f"{best.letter} is the most accurate; whether {fastest.letter} is faster cannot be told here"
    times = _latency(best) / _latency(fastest)
    points = 100 * (_map(best) - _map(fastest))
    return (
        f"{best.letter} is the most accurate; {fastest.letter} takes {1 / times:.2f} of its time here for {points:.2f} "
        "points of mAP less"
    )


def _is_faster(one: Compared, other: Compared) -> bool:
    """Whether the quartiles of the ratios to the first model, taken turn by turn, say so."""
    assert one.speed is not None
    assert other.speed is not None
    return one.speed.of_first_quartiles[1] < other.speed.of_first_quartiles[0]


def _map(model: Compared) -> float:
    return model.candidate.mean_average_precision or 0.0


def _latency(model: Compared) -> float:
    return model.speed.latency_ms if model.speed else 0.0


def _text(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _percent(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{100 * ratio:.2f}"


def _megabytes(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 1e6:,.2f}"


def _ratio(speed: Speed | None) -> str:
    if speed is None:
        return UNKNOWN
    low, high = speed.of_first_quartiles
    return f"{speed.of_first:.2f}" + (f" ({low:.2f} … {high:.2f})" if low != high else "")


def why_not(models: Sequence[Compared]) -> list[str]:
    """Return why models have no speed, a sentence each."""
    return [f"{model.letter} {model.candidate.name}: {model.why_not}" for model in models if model.why_not]
