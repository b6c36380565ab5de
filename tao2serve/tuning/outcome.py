"""What is asked of a tuning, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tao2serve.loadtest import Gate, LoadPlan
from tao2serve.tuning.candidate import Grid
from tao2serve.tuning.deployed import Deployed
from tao2serve.tuning.search import BLOCKS, Tuning
from tao2serve.tuning.skipped import Skipped

__all__ = ["Limits", "Outcome", "TuneRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate must hold besides the load test's own demands."""

    gates: tuple[Gate, ...] = ()
    memory_bytes: int | None = None  # resident, of Triton's processes together, other models included
    gpu_memory_bytes: int | None = None  # of each GPU, whoever uses it


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """What to tune, and under which load; the plan's targets are put in by the tuning."""

    endpoint: str  # NAME or NAME/VERSION
    plan: LoadPlan
    limits: Limits
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # in place of the default grid's
    blocks: int = BLOCKS
    directory: Path = Path("tao2serve-loadtest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a tuning, and what it rests on; the paths are those of the files once they are written."""

    request: TuneRequest
    deployed: Deployed
    tuning: Tuning
    grid: Grid
    skipped: tuple[Skipped, ...]
    hardware: Mapping[str, str]  # that serves
    serving: Mapping[str, str]  # versions of what serves
    generator: Mapping[str, str]  # of what made the load, by names as a page shows them
    at: datetime  # when it began
    reused: int  # measurements that were there already
    tuned: Path | None = None  # the file of the proposed settings; None if nothing holds
    report: Path | None = None
    reported_to: str | None = None  # ClearML task

    @property
    def name(self) -> str:
        return f"{self.deployed.endpoint.name}/{self.deployed.endpoint.version}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `loadtest --tune`."""
        return {
            "endpoint": self.name,
            "started_at": self.at.isoformat(),
            "model_sha256": self.deployed.artifact.sha256,
            "precision": self.deployed.artifact.precision,
            "shape": str(self.request.plan.shape),
            "hardware": dict(self.hardware),
            "serving": dict(self.serving),
            "slo": [gate.text for gate in self.request.limits.gates],
            "memory_limit_bytes": self.request.limits.memory_bytes,
            "gpu_memory_limit_bytes": self.request.limits.gpu_memory_bytes,
            **self.tuning.to_dict(),
            "skipped": [one.to_dict() for one in self.skipped],
            "reused_measurements": self.reused,
            "tuned": str(self.tuned) if self.tuned else None,
            "report": str(self.report) if self.report else None,
            "reported_to": self.reported_to,
            "passed": self.tuning.proposed is not None,
        }
