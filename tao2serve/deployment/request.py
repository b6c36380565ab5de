"""What a user asks `deploy` for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tao2serve.artifact_request import ArtifactRequest, to_serve
from tao2serve.errors import UsageError
from tao2serve.loadtest import Gate
from tao2serve.registry.source import Source
from tao2serve.serving.names import check_endpoint_name
from tao2serve.serving.rollout import with_canary
from tao2serve.tuned import Tuned

__all__ = ["DeployRequest", "LoadGate", "check_request"]

GATE_USERS: Final = 2
GATE_WARMUP_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGate:
    """A load test that a version must pass before its alias is touched."""

    gates: tuple[Gate, ...]
    images: Path
    run_time_s: float
    users: int = GATE_USERS
    warmup_s: float = GATE_WARMUP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """What to deploy, and under which name; `image` is what the smoke request and the parity look at.

    `canary` is the percentage of the alias that the version gets, None for all of it. With `force` nothing of earlier
    deployments is recalled: a new version is made. A published package of the same content is reused all the same.
    """

    source: Source
    endpoint: str
    image: bytes | None = None
    clustering: Path | None = None
    artifacts: ArtifactRequest = field(default_factory=to_serve)
    canary: float | None = None
    gate: LoadGate | None = None
    force: bool = False
    tuned: Tuned | None = None  # where some of the settings come from: another model is refused


def check_request(request: DeployRequest) -> None:
    """Raise UsageError for what no server is needed to see: a name or a percentage that is none."""
    check_endpoint_name(request.endpoint)
    if request.canary is not None:
        with_canary({}, 1, request.canary)
    if request.gate is not None and not request.gate.images.exists():
        raise UsageError("--gate-images", f"{request.gate.images} does not exist")
