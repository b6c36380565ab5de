"""SLO gates: what a load test must reach, and whether it did."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import UsageError
from tao2serve.loadtest.result import LoadResult

__all__ = ["FAILURE_LIMIT", "Gate", "Verdict", "document", "evaluate", "parse_gate", "passed"]

FAILURE_LIMIT = 0.01
_LATENCIES = ("p50", "p90", "p95", "p99", "max")
_SHAPE = re.compile(r"\s*([a-z0-9-]+)\s*=\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-z/%]*)\s*", re.IGNORECASE)
_HINT = "p50|p90|p95|p99|max=50ms, failure-ratio=0.01 or throughput=100rps"
# metric → unit → factor to the metric's own unit
_UNITS = {
    **{metric: {"ms": 1.0, "s": 1000.0} for metric in _LATENCIES},
    "failure-ratio": {"": 1.0, "%": 0.01},
    "throughput": {"rps": 1.0, "/s": 1.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One limit: a latency at most, a failure ratio at most, or a throughput at least."""

    metric: str  # p50 | p90 | p95 | p99 | max | failure-ratio | throughput
    limit: float  # ms, ratio or requests per second

    @property
    def unit(self) -> str:
        return "ms" if self.metric in _LATENCIES else "rps" if self.metric == "throughput" else ""

    @property
    def text(self) -> str:
        return f"{self.metric}={self.limit:g}{self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A gate and what was measured; `observed` is None where nothing could be."""

    gate: Gate
    observed: float | None
    passed: bool

    def to_dict(self) -> dict[str, object]:
        return {
            "gate": self.gate.text,
            "metric": self.gate.metric,
            "limit": self.gate.limit,
            "unit": self.gate.unit,
            "observed": None if self.observed is None else round(self.observed, 6),
            "passed": self.passed,
        }


def parse_gate(text: str) -> Gate:
    """Read a gate such as `p99=50ms`, `max=1s`, `failure-ratio=1%` or `throughput=100rps`.

    Latency and throughput need their unit. Raises UsageError for anything else.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UsageError("--slo", f"{text!r} is not METRIC=LIMIT", hint=_HINT)
    metric, number, unit = match.group(1).lower(), match.group(2), match.group(3).lower()
    units = _UNITS.get(metric)
    if units is None:
        raise UsageError("--slo", f"{metric!r} is not a metric", evidence=text, hint=_HINT)
    if unit not in units:
        fact = f"{unit!r} is not a unit of {metric}" if unit else f"{metric} needs a unit"
        raise UsageError("--slo", fact, evidence=text, hint=_HINT)
    try:
        limit = float(number) * units[unit]
    except ValueError:
        raise UsageError("--slo", f"{number!r} is not a number", evidence=text, hint=_HINT) from None
    if not math.isfinite(limit) or (metric == "failure-ratio" and limit > 1):
        raise UsageError("--slo", f"{number}{unit} is no possible {metric}", evidence=text, hint=_HINT)
    return Gate(metric=metric, limit=limit)


def evaluate(result: LoadResult, gates: Iterable[Gate]) -> tuple[Verdict, ...]:
    """Hold each gate against the result; a gate on something that was not measured is missed."""
    return tuple(_verdict(result, gate) for gate in gates)


def _verdict(result: LoadResult, gate: Gate) -> Verdict:
    observed = _observed(result, gate.metric)
    if observed is None:
        return Verdict(gate=gate, observed=None, passed=False)
    reached = observed >= gate.limit if gate.metric == "throughput" else observed <= gate.limit
    return Verdict(gate=gate, observed=observed, passed=reached and result.requests > 0)


def _observed(result: LoadResult, metric: str) -> float | None:
    if metric == "failure-ratio":
        return result.failure_ratio
    if metric == "throughput":
        return result.throughput_rps
    if result.latency_ms is None:
        return None
    return result.latency_ms.to_dict()[metric]


def passed(result: LoadResult, verdicts: Sequence[Verdict]) -> bool:
    """Return whether every gate was reached.

    A test whose load generator was the limit never passes, since it measured itself; nor one without a successful
    request; nor, unless a failure-ratio gate says otherwise, one in which more than FAILURE_LIMIT of the requests
    failed: the latencies are those of the others.
    """
    judged = any(verdict.gate.metric == "failure-ratio" for verdict in verdicts)
    bearable = judged or (result.failure_ratio or 0.0) <= FAILURE_LIMIT
    return (
        not result.client.saturated
        and result.successes > 0
        and bearable
        and all(verdict.passed for verdict in verdicts)
    )


def document(result: LoadResult, verdicts: Sequence[Verdict], *, report: Path | None = None) -> dict[str, object]:
    """Return the JSON document of `tao2serve loadtest`."""
    return {
        **result.to_dict(),
        "slo": [verdict.to_dict() for verdict in verdicts],
        "passed": passed(result, verdicts),
        "report": str(report) if report else None,
    }
