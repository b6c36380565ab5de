"""What came of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tao2serve.deployment.candidate import Candidate
from tao2serve.deployment.gate import GateResult
from tao2serve.deployment.job import Job
from tao2serve.errors import GateError
from tao2serve.parity.boxes import BoxParity
from tao2serve.registry.operation import Operation
from tao2serve.registry.source import ResolvedSource
from tao2serve.serving.client import Answer
from tao2serve.serving.service import EndpointVersion
from tao2serve.steps import WARNING, Steps

__all__ = ["Deployment", "GateMissedError", "Switch", "endpoint_document", "outcome_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The weights of an alias by version, before and after; the same if nothing was changed."""

    before: Mapping[int, float]
    after: Mapping[int, float]

    def to_dict(self) -> dict[str, dict[str, float]]:
        return {
            name: {str(version): round(weight, 9) for version, weight in sorted(weights.items())}
            for name, weights in (("before", self.before), ("after", self.after))
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A live endpoint version and how it came to be.

    `artifact` is the document's member of that name: of this run, or as the run noted it that made the version.
    """

    endpoint: EndpointVersion
    source: ResolvedSource
    artifact: Mapping[str, Any]
    parity: BoxParity
    smoke: Answer
    placement: str
    service_id: str
    task_id: str  # of the operation; of the one that made the version if nothing was changed
    changed: bool  # False: it was all there already
    reused: bool  # the version was there before, or a run that was killed had begun it
    alias: Switch
    load: Mapping[str, Any] | None  # document of the load test, None if there was none
    steps: Steps
    passed: bool = True  # False: the load gate was missed, and nothing of the version stayed

    @property
    def precision(self) -> str:
        return str(self.artifact.get("precision", ""))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its user must know of source and spec, and what steps of this run warn of."""
        said = (event.detail for event in self.steps.done if event.detail.startswith(WARNING))
        return (*self.artifact.get("warnings", ()), *(detail.removeprefix(WARNING) for detail in said))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve deploy`."""
        trained = self.source.trained
        return {
            "outcome": "ok" if self.passed else "missed",
            "changed": self.changed,
            "endpoint": {**endpoint_document(self.endpoint), "reused": self.reused},
            "alias": self.alias.to_dict(),
            "source": {
                "weights": self.source.weights.name,
                "model_id": trained.model_id if trained else None,
                "task_id": trained.task_id if trained else None,
                "reason": self.source.reason,
            },
            "artifact": dict(self.artifact),
            "parity": {
                "boxes_expected": self.parity.expected,
                "boxes_found": self.parity.found,
                "matched_ratio": self.parity.matched_ratio,
            },
            "load": dict(self.load) if self.load else None,
            "placement": self.placement,
            "deployment_task_id": self.task_id,
            "service_id": self.service_id,
            "steps": self.steps.to_list(),
        }


class GateMissedError(GateError):
    """A version that missed its load gate; what it had added is taken away again, the alias was never touched."""

    def __init__(self, deployment: Deployment, missed: str) -> None:
        super().__init__(deployment.endpoint.url, "missed its load gate, and is taken away again", evidence=missed)
        self.deployment = deployment


def endpoint_document(endpoint: EndpointVersion) -> dict[str, str]:
    return {
        "name": endpoint.name,
        "version": str(endpoint.version),
        "url": endpoint.url,
        "alias_url": endpoint.alias_url,
    }


def outcome_of(
    candidate: Candidate,
    job: Job,
    smoke: Answer,
    parity: BoxParity,
    operation: Operation | None = None,
    alias: Switch | None = None,
    gate: GateResult | None = None,
) -> Deployment:
    """Gather what came of a run; without an operation it changed nothing."""
    if alias is None:
        weights = job.site.state().weights(job.site.name)
        alias = Switch(before=weights, after=weights)
    return Deployment(
        endpoint=candidate.endpoint,
        source=job.chosen.source,
        artifact=candidate.artifact,
        parity=parity,
        smoke=smoke,
        placement=job.settings.placement,
        service_id=job.site.service.id,
        task_id=operation.id if operation else candidate.task_id,
        changed=operation is not None,
        reused=candidate.reused,
        alias=alias,
        load=gate.document if gate else candidate.load,
        steps=job.steps,
        passed=gate is None or gate.passed,
    )
