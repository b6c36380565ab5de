"""What a user asks `pipeline` for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import UsageError
from tao2serve.loadtest import parse_gate
from tao2serve.registry.source import Source
from tao2serve.remote.request import Given
from tao2serve.serving.names import check_endpoint_name
from tao2serve.serving.rollout import with_canary

__all__ = ["STEPS", "PipelineRequest", "QueueWish", "check_request", "pipeline_name", "pipeline_project", "steps_until"]

STEPS: Final = ("choose", "export", "build", "verify", "publish", "deploy", "loadtest", "promote")

SHORTEST_NAME: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWish:
    """Where the steps run, if not here: a queue, and how long a worker may take to take one."""

    name: str
    wait_s: float
    wait_for_worker: bool = False
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRequest:
    """What goes where, and by which gates.

    `making` are options of `deploy` that say what is made of the weights, `judging` those that say by what it is
    judged. `settings` hold in every step. `from_step` is run anew with all that follows, `until` is the last one.
    """

    endpoint: str
    source: Source
    making: tuple[Given, ...] = ()
    judging: tuple[Given, ...] = ()
    verify_images: Path | None = None
    canary: float = 10.0
    slo: Sequence[str] = ()
    gate_images: Path | None = None
    gate_time: str = "10s"
    users: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    queue: QueueWish | None = None
    from_step: str = ""
    until: str = STEPS[-1]
    watch: str = ""  # ClearML task of the watch that started it

    @property
    def steps(self) -> tuple[str, ...]:
        return steps_until(self.until)


def steps_until(last: str) -> tuple[str, ...]:
    """Return the steps up to one, it included."""
    return STEPS[: STEPS.index(last) + 1]


def pipeline_name(endpoint: str) -> str:
    """Return what the pipeline of an endpoint is called: ClearML wants three letters for a name of a project."""
    return endpoint if len(endpoint) >= SHORTEST_NAME else f"{endpoint} pipeline"


def pipeline_project(project: str, endpoint: str) -> str:
    """Return the ClearML project where the SDK keeps the runs of a pipeline, and where its steps are kept too."""
    return f"{project}/.pipelines/{pipeline_name(endpoint)}"


def check_request(request: PipelineRequest) -> None:
    """Raise UsageError for what no server is needed to see."""
    check_endpoint_name(request.endpoint)
    with_canary({}, 1, request.canary)
    for option, word in (("--from-step", request.from_step), ("--until", request.until)):
        if word and word not in STEPS:
            raise UsageError(option, f"is {word!r}", hint=f"one of {', '.join(STEPS)}")
    if request.from_step and request.from_step not in request.steps:
        raise UsageError("--from-step", f"{request.from_step} comes after --until {request.until}")
    for gate in request.slo:
        parse_gate(gate)
    if "loadtest" in request.steps:
        if not request.slo:
            hint = "add: --slo p99=250ms; or stop before it: --until deploy"
            raise UsageError("pipeline", "has no gate, and would promote whatever answers", hint=hint)
        if request.gate_images is None:
            raise UsageError("--slo", "needs pictures to load-test with", hint="add: --gate-images DIR")
    for option, path in (("--gate-images", request.gate_images), ("--images", request.verify_images)):
        if path is not None and not path.exists():
            raise UsageError(option, f"{path} does not exist")
