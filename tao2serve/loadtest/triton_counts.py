"""What Triton counted for a deployment's models between two moments, per request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from tao2serve.errors import ServiceError

__all__ = ["Counters", "ModelCounts", "TritonCounters", "Version", "counted_between", "counters_of", "is_part_of"]

_TIMEOUT_S: Final = 2.0
_STAGES: Final = ("queue", "compute_input", "compute_infer", "compute_output", "success")

Version: TypeAlias = tuple[str, str]  # a model's name, and its version on Triton


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """One model's requests between two readings; times are means over its successful requests, in milliseconds.

    A request in a batch waits for the whole batch, so `infer_ms` is the batch's. That of a model of the python
    backend is its `execute`, without copying the tensors in and out. An ensemble's are the sums of its models',
    but for the queue, which is its own alone.
    """

    name: str
    version: str = ""  # on Triton
    requests: int  # successful ones
    failures: int = 0
    inferences: int  # images
    executions: int
    batch_sizes: tuple[tuple[int, int], ...] = ()  # (images, executions with so many), smallest first
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    total_ms: float  # from Triton's taking the request to its answer
    targets: tuple[int, ...] = ()  # of the plan, by their number from 0, that it answers, as far as that is known

    @property
    def batch_size(self) -> float:
        """Mean images in one execution, 0 for a model that ran none itself, as an ensemble."""
        return self.inferences / self.executions if self.executions else 0.0

    def to_dict(self) -> dict[str, Any]:
        times = {name: round(value, 4) for name, value in asdict(self).items() if name.endswith("_ms")}
        sizes = {str(size): count for size, count in self.batch_sizes}
        return {**asdict(self), **times, "batch_sizes": sizes, "batch_size": round(self.batch_size, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What Triton has counted for one version of a model since it was loaded; times in nanoseconds."""

    inferences: int
    executions: int
    failures: int
    counts: Mapping[str, int]  # by stage: queue, compute_input, compute_infer, compute_output, success
    total_ns: Mapping[str, int]
    batches: Mapping[int, int] = field(default_factory=dict)  # executions by batch size


class TritonCounters:
    """Reads a Triton's counters over gRPC."""

    def __init__(self, address: str, prefixes: Iterable[str] = ()) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.address = address
        self._prefixes = tuple(prefixes)
        self._client: Any = InferenceServerClient(address)

    def read(self) -> dict[Version, Counters]:
        """Return the counters of each model called like a prefix or `PREFIX_…`; without prefixes, of all models.

        Raises ServiceError if Triton does not answer.
        """
        from tritonclient.utils import InferenceServerException

        try:
            found = self._client.get_inference_statistics(client_timeout=_TIMEOUT_S).model_stats
        except InferenceServerException as error:
            raise ServiceError(
                f"Triton at {self.address}", "does not tell its statistics", evidence=str(error.message())
            ) from error
        return {
            (model.name, model.version): counters_of(model)
            for model in found
            if not self._prefixes or any(is_part_of(model.name, prefix) for prefix in self._prefixes)
        }

    def close(self) -> None:
        self._client.close()


def is_part_of(model: str, prefix: str) -> bool:
    """Whether a model on Triton is the deployment `prefix`, or one of the models an ensemble of that name passes to."""
    return model == prefix or model.startswith(f"{prefix}_")


def counters_of(model: Any) -> Counters:
    """Read a `ModelStatistics` message of Triton's protocol."""
    stats = model.inference_stats
    return Counters(
        inferences=model.inference_count,
        executions=model.execution_count,
        failures=stats.fail.count,
        counts={stage: getattr(stats, stage).count for stage in _STAGES},
        total_ns={stage: getattr(stats, stage).ns for stage in _STAGES},
        batches={batch.batch_size: batch.compute_infer.count for batch in model.batch_stats},
    )


def counted_between(
    before: Mapping[Version, Counters], after: Mapping[Version, Counters]
) -> tuple[tuple[ModelCounts, ...], tuple[str, ...]]:
    """Return what each model was asked from `before` to `after`, by name, and in words what cannot be told.

    A model without requests is left out. Triton counts anew when it or the model is started again: of such
    a model nothing is told. One that was loaded in between has counted from zero.
    """
    models, notes = [], []
    for version in sorted({*before, *after}):
        name = version[0]
        if version not in after:
            notes.append(f"{name} was unloaded meanwhile: nothing of it is counted")
            continue
        grown = _grown(before.get(version), after[version])
        if grown is None:
            notes.append(f"the counters of {name} went backwards: Triton or the model was started again meanwhile")
        elif grown.counts["success"] or grown.failures:
            models.append(_counts(version, grown))
    return tuple(models), tuple(notes)


def _grown(before: Counters | None, after: Counters) -> Counters | None:
    """Return the differences, or None if a counter went backwards."""
    if before is None:
        return after
    grown = Counters(
        inferences=after.inferences - before.inferences,
        executions=after.executions - before.executions,
        failures=after.failures - before.failures,
        counts={stage: after.counts[stage] - before.counts[stage] for stage in _STAGES},
        total_ns={stage: after.total_ns[stage] - before.total_ns[stage] for stage in _STAGES},
        batches={size: count - before.batches.get(size, 0) for size, count in after.batches.items()},
    )
    figures = (grown.inferences, grown.executions, grown.failures)
    all_figures = (*figures, *grown.counts.values(), *grown.total_ns.values(), *grown.batches.values())
    # A batch size that is gone was counted before the start.
    return None if min(all_figures) < 0 or before.batches.keys() - after.batches.keys() else grown


def _counts(version: Version, grown: Counters) -> ModelCounts:
    def mean_ms(stage: str) -> float:
        count = grown.counts[stage]
        return grown.total_ns[stage] / count / 1e6 if count else 0.0

    return ModelCounts(
        name=version[0],
        version=version[1],
        requests=grown.counts["success"],
        failures=grown.failures,
        inferences=grown.inferences,
        executions=grown.executions,
        batch_sizes=tuple(sorted((size, count) for size, count in grown.batches.items() if count)),
        queue_ms=mean_ms("queue"),
        input_ms=mean_ms("compute_input"),
        infer_ms=mean_ms("compute_infer"),
        output_ms=mean_ms("compute_output"),
        total_ms=mean_ms("success"),
    )
