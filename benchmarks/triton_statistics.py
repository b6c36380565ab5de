"""What Triton counted for a deployment's models between two moments, per request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ModelTimes", "TritonStatistics", "between"]

_STAGES = ("queue", "compute_input", "compute_infer", "compute_output", "success")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTimes:
    """Means over the requests of one model, in milliseconds; `total` is from Triton's taking the request to its answer.

    `infer` of a python-backend model is its `execute`, without copying the tensors in and out.
    """

    requests: int
    batch_size: float
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    total_ms: float


class TritonStatistics:
    """Reads a Triton's counters over gRPC."""

    def __init__(self, address: str) -> None:
        from tritonclient.grpc import InferenceServerClient

        self._client: Any = InferenceServerClient(address)

    def read(self, prefix: str) -> dict[str, dict[str, int]]:
        """Return the counters of each model called `prefix` or `prefix_…`, which is a deployment's whole set."""
        found = {}
        for model in self._client.get_inference_statistics().model_stats:
            if model.name == prefix or model.name.startswith(f"{prefix}_"):
                counters = {"inferences": model.inference_count, "executions": model.execution_count}
                for stage in _STAGES:
                    figure = getattr(model.inference_stats, stage)
                    counters[f"{stage}_ns"], counters[f"{stage}_count"] = figure.ns, figure.count
                found[model.name] = counters
        return found


def between(before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]) -> dict[str, ModelTimes]:
    """Return what was counted from `before` to `after`; a model without requests is left out."""
    found = {}
    for name, counters in after.items():
        grown = {key: value - before.get(name, {}).get(key, 0) for key, value in counters.items()}
        if grown["success_count"]:
            found[name] = ModelTimes(
                requests=grown["success_count"],
                batch_size=grown["inferences"] / grown["executions"] if grown["executions"] else 0.0,
                queue_ms=_mean_ms(grown, "queue"),
                input_ms=_mean_ms(grown, "compute_input"),
                infer_ms=_mean_ms(grown, "compute_infer"),
                output_ms=_mean_ms(grown, "compute_output"),
                total_ms=_mean_ms(grown, "success"),
            )
    return found


def _mean_ms(grown: Mapping[str, int], stage: str) -> float:
    count = grown[f"{stage}_count"]
    return grown[f"{stage}_ns"] / count / 1e6 if count else 0.0
