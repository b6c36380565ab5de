"""The load gate: a version must be fast enough before its alias is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.deployment.request import LoadGate
from tao2serve.loadtest import (
    ClosedLoop,
    LoadPlan,
    LoadResult,
    Target,
    Verdict,
    document,
    evaluate,
    passed,
    run_load_test,
)
from tao2serve.serving.service import EndpointVersion

__all__ = ["GateResult", "run_gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """A load test and its verdicts."""

    result: LoadResult
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        return passed(self.result, self.verdicts)

    @property
    def document(self) -> dict[str, Any]:
        return document(self.result, self.verdicts)

    def __str__(self) -> str:
        judged = ", ".join(
            f"{verdict.gate.text} {'reached' if verdict.passed else 'MISSED'}"
            + ("" if verdict.observed is None else f" with {verdict.observed:.4g}{verdict.gate.unit}")
            for verdict in self.verdicts
        )
        return f"{self.result.requests} requests, {self.result.failures} failed; {judged}"


def run_gate(
    gate: LoadGate, endpoint: EndpointVersion, *, directory: Path, on_news: Callable[[str], None], triton: str
) -> GateResult:
    """Load-test one version by its own URL, and judge it; `triton` is HOST:PORT. Raises as `run_load_test` does."""
    plan = LoadPlan(
        targets=(Target(url=endpoint.url),), images=gate.images, shape=ClosedLoop(users=gate.users),
        run_time_s=gate.run_time_s, warmup_s=gate.warmup_s, endpoint=f"{endpoint.name}/{endpoint.version}",
        triton=triton, triton_model=endpoint.triton_model,
    )  # fmt: skip
    result = run_load_test(plan, directory=directory, on_progress=lambda now: on_news(str(now)))
    return GateResult(result=result, verdicts=evaluate(result, gate.gates))
