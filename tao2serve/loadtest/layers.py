"""What each layer of the path costs: one plan on the endpoint, on Triton over HTTP and on Triton over gRPC.

The targets take turns in blocks, forwards and backwards, so that whatever else the machine does meets all of them. An
endpoint is sent pictures, and a Triton model that takes tensors is sent tensors, so an endpoint's extra time has
reading the picture and clustering boxes in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from tao2serve.errors import UsageError
from tao2serve.loadtest.plan import LoadPlan, Target
from tao2serve.loadtest.result import LatencySummary, LoadResult
from tao2serve.loadtest.runner import run_load_test

__all__ = ["Layer", "LayerCosts", "measure_layers"]

_BLOCKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One target's blocks; percentiles are the median over blocks, which one disturbed block does not move."""

    target: Target
    results: tuple[LoadResult, ...] = field(repr=False)

    @property
    def p50_ms(self) -> float | None:
        """None if no request of any block was answered."""
        return self._median(lambda latency: latency.p50)

    @property
    def p99_ms(self) -> float | None:
        return self._median(lambda latency: latency.p99)

    @property
    def throughput_rps(self) -> float:
        return statistics.median(result.throughput_rps for result in self.results)

    @property
    def requests(self) -> int:
        return sum(result.requests for result in self.results)

    @property
    def failures(self) -> int:
        return sum(result.failures for result in self.results)

    @property
    def saturated(self) -> str:
        """Why the load generator was the limit in a block, "" if it never was."""
        return next((result.client.reason for result in self.results if result.client.saturated), "")

    def _median(self, number: Callable[[LatencySummary], float]) -> float | None:
        found = [number(result.latency_ms) for result in self.results if result.latency_ms is not None]
        return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCosts:
    """The layers side by side, the outermost first."""

    layers: tuple[Layer, ...]

    def added_ms(self, layer: Layer) -> float | None:
        """The layer's p50 less that of the innermost; None where one of them is missing."""
        p50_ms, least_ms = layer.p50_ms, self.layers[-1].p50_ms
        return None if p50_ms is None or least_ms is None else p50_ms - least_ms

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document, without the single blocks' own."""
        return {"layers": [self._row(layer) for layer in self.layers]}

    def _row(self, layer: Layer) -> dict[str, object]:
        blocks = [result.latency_ms for result in layer.results]
        return {
            "layer": layer.target.label,
            "target": asdict(layer.target),
            "p50_ms": _rounded(layer.p50_ms),
            "added_ms": _rounded(self.added_ms(layer)),
            "p99_ms": _rounded(layer.p99_ms),
            "throughput_rps": round(layer.throughput_rps, 3),
            "requests": layer.requests,
            "failures": layer.failures,
            "saturated": bool(layer.saturated),
            "reason": layer.saturated,
            "blocks_p50_ms": [None if latency is None else _rounded(latency.p50) for latency in blocks],
        }


def measure_layers(
    plan: LoadPlan,
    targets: Sequence[Target],
    *,
    blocks: int = _BLOCKS,
    on_block: Callable[[Target, int], None] = lambda target, block: None,
    run: Callable[[LoadPlan], LoadResult] = run_load_test,
) -> LayerCosts:
    """Run the plan on each target, the outermost first; its own targets do not count.

    The run time of the plan is that of each target, in `blocks` parts, and each part has the plan's warm-up.
    Raises UsageError for fewer than two targets or no block, and what `run` raises.
    """
    if len(targets) < 2:
        raise UsageError("layers", f"{len(targets)} is too few to compare", hint="name an endpoint and a Triton model")
    if blocks < 1:
        raise UsageError("blocks", f"{blocks} is not a number of blocks", hint="at least 1")
    results: dict[int, list[LoadResult]] = {index: [] for index in range(len(targets))}
    for block in range(blocks):
        order = range(len(targets))
        for index in order if block % 2 == 0 else reversed(order):
            on_block(targets[index], block)
            results[index].append(run(replace(plan, targets=(targets[index],), run_time_s=plan.run_time_s / blocks)))
    return LayerCosts(
        layers=tuple(Layer(target=target, results=tuple(results[index])) for index, target in enumerate(targets))
    )


def _rounded(number_ms: float | None) -> float | None:
    return None if number_ms is None else round(number_ms, 3)
