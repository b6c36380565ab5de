"""SLO gates: what a load test must reach, and whether it did."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tao2serve.errors import UsageError
from tao2serve.loadtest.confidence import bursts, confidence_in_bursts
from tao2serve.loadtest.plan import OpenLoop
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.window import is_measured

__all__ = [
    "FAILURE_LIMIT",
    "Gate",
    "Miss",
    "Verdict",
    "document",
    "evaluate",
    "parse_gate",
    "passed",
    "reasons",
    "shortfall",
]

FAILURE_LIMIT = 0.01
_RATE_TOLERANCE = 0.02
_PERCENTILES = ("p50", "p90", "p95", "p99")
_LATENCIES = (*_PERCENTILES, "max")
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

    @property
    def quantile(self) -> float | None:
        """Of a percentile 0.5 to 0.99, None for other metrics."""
        return float(self.metric[1:]) / 100 if self.metric in _PERCENTILES else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """By how much a number is on the wrong side of its limit, in the gate's unit and in percent of the limit."""

    gate: Gate
    absolute: float
    percent: float | None  # None of a limit of 0

    @property
    def text(self) -> str:
        """As `12.4 ms (24.8 %)`."""
        if self.gate.metric == "failure-ratio":
            size = f"{100 * self.absolute:.3g} percentage points"
        else:
            size = f"{_digits(self.absolute)} {self.gate.unit}"
        return size if self.percent is None else f"{size} ({_digits(self.percent)} %)"

    def to_dict(self) -> dict[str, object]:
        percent = None if self.percent is None else round(self.percent, 3)
        return {"absolute": round(self.absolute, 6), "percent": percent, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A gate and what was measured; `observed` is None where nothing could be.

    A gate may be missed though its number is on the right side: `reason` says why that number is not to be believed.
    """

    gate: Gate
    observed: float | None
    passed: bool
    reason: str = ""  # of a gate that is missed, a sentence without its stop; "" if it is reached
    late: tuple[int, ...] | None = None  # of a percentile: sizes of the bursts of answers beyond the limit
    confidence: float | None = None  # of a percentile: that the true one is within the limit, see confidence.py

    @property
    def beyond(self) -> int | None:
        """The successful requests that took longer than the limit of a percentile."""
        return None if self.late is None else sum(self.late)

    @property
    def missed_by(self) -> Miss | None:
        """None if the number is within its limit, or there is none."""
        if self.observed is None:
            return None
        limit = self.gate.limit
        over = limit - self.observed if self.gate.metric == "throughput" else self.observed - limit
        if over <= 0:
            return None
        return Miss(gate=self.gate, absolute=over, percent=100 * over / limit if limit else None)

    def to_dict(self) -> dict[str, object]:
        missed_by = self.missed_by
        return {
            "gate": self.gate.text,
            "metric": self.gate.metric,
            "limit": self.gate.limit,
            "unit": self.gate.unit,
            "observed": None if self.observed is None else round(self.observed, 6),
            "passed": self.passed,
            "missed_by": missed_by.to_dict() if missed_by else None,
            "reason": self.reason,
            "beyond": self.beyond,
            "bursts": None if self.late is None else len(self.late),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
        }


def _digits(value: float) -> str:
    """Three digits that count, and no exponent: a second over a limit of 50 ms is 1,000 ms."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


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
    is_possible = limit > 0 if metric in _LATENCIES else limit <= 1 or metric != "failure-ratio"
    if not math.isfinite(limit) or not is_possible:
        raise UsageError("--slo", f"{number}{unit} is no possible {metric}", evidence=text, hint=_HINT)
    return Gate(metric=metric, limit=limit)


def evaluate(result: LoadResult, gates: Iterable[Gate]) -> tuple[Verdict, ...]:
    """Hold each gate against the result.

    A gate on something that was not measured is missed, and so is every gate if the load generator was saturated:
    the numbers are its own then.
    """
    return tuple(_verdict(result, gate) for gate in gates)


def _verdict(result: LoadResult, gate: Gate) -> Verdict:
    observed = _observed(result, gate.metric)
    if observed is None or not result.requests:
        return Verdict(gate=gate, observed=observed, passed=False, reason="nothing was measured")
    late, confidence = _certainty(result, gate)
    verdict = Verdict(gate=gate, observed=observed, passed=False, late=late, confidence=confidence)
    if (miss := verdict.missed_by) is not None:
        return replace(verdict, reason=f"missed by {miss.text}")
    if result.client.saturated:
        return replace(verdict, reason="the load generator was the bottleneck, so the number is its own")
    return replace(verdict, passed=True)


def _certainty(result: LoadResult, gate: Gate) -> tuple[tuple[int, ...] | None, float | None]:
    """Return the bursts of successful requests that took longer than the limit of a percentile, and what they say."""
    measured = [record for record in result.records if record.ok and is_measured(result.plan, record)]
    if gate.quantile is None or not measured:
        return None, None
    measured.sort(key=lambda record: record.intended_s)
    is_open = result.plan.is_open
    late = bursts((record.response_ms if is_open else record.latency_ms) > gate.limit for record in measured)
    return late, confidence_in_bursts(len(measured), late, quantile=gate.quantile)


def _observed(result: LoadResult, metric: str) -> float | None:
    if metric == "failure-ratio":
        return result.failure_ratio
    if metric == "throughput":
        return result.throughput_rps
    if result.latency_ms is None:
        return None
    return result.latency_ms.to_dict()[metric]


def passed(result: LoadResult, verdicts: Sequence[Verdict]) -> bool:
    """Return whether every gate was reached, see `reasons`."""
    return not reasons(result, verdicts)


def reasons(result: LoadResult, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return why a test does not pass, a sentence each without its stop; none if it does.

    A test whose load generator was the limit never passes, since it measured itself; nor one without a successful
    request; nor, unless a failure-ratio gate says otherwise, one in which more than FAILURE_LIMIT of the requests
    failed: the latencies are those of the others. With gates it does not pass either if an open loop sent fewer
    requests than its rate.
    """
    found = [
        f"{verdict.gate.text} was missed by {miss.text}" if (miss := verdict.missed_by) else
        f"{verdict.gate.text} is not judged: {verdict.reason}"
        for verdict in verdicts
        if not verdict.passed
    ]  # fmt: skip
    judged = any(verdict.gate.metric == "failure-ratio" for verdict in verdicts)
    if not result.successes:
        found.append("no request succeeded" if result.requests else "no request was sent within the run time")
    elif not judged and (result.failure_ratio or 0.0) > FAILURE_LIMIT:
        found.append(f"{result.failures} of {result.requests} requests failed; say --slo failure-ratio=… to allow it")
    if result.client.saturated:
        found.append(result.client.reason)
    if verdicts and (too_few := shortfall(result)):
        found.append(too_few)
    return tuple(found)


def shortfall(result: LoadResult) -> str:
    """Say so if an open loop sent fewer requests than its rate; Poisson arrivals are that few once in 30,000 runs."""
    shape = result.plan.shape
    if not isinstance(shape, OpenLoop):
        return ""
    expected = shape.rate_rps * result.plan.run_time_s
    chance = 4 * math.sqrt(expected) if shape.arrivals == "poisson" else 0.0
    if result.requests >= expected * (1 - _RATE_TOLERANCE) - chance - 1:
        return ""
    return f"the rate was not offered: {result.requests} requests were sent, about {expected:.0f} were to be"


def document(result: LoadResult, verdicts: Sequence[Verdict], *, report: Path | None = None) -> dict[str, object]:
    """Return the JSON document of `tao2serve loadtest`."""
    return {
        **result.to_dict(),
        "slo": [verdict.to_dict() for verdict in verdicts],
        "passed": passed(result, verdicts),
        "reasons": list(reasons(result, verdicts)),
        "report": str(report) if report else None,
    }
