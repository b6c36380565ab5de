"""What is wrong with a spec, one finding each: where, how bad, why it matters, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["STAGES", "Finding", "Severity", "Stage"]

Severity: TypeAlias = Literal["error", "warning"]
Stage: TypeAlias = Literal["training", "serving", "tracking"]
STAGES: Final[tuple[Stage, ...]] = ("training", "serving", "tracking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`line` is None where the whole file lacks something; `stage` is what suffers first.

    `ends_training` says that TAO trains with it in no case, also where it is no more than a warning: the spec of a
    model that is there may still be served.
    """

    severity: Severity
    stage: Stage
    field: str
    line: int | None
    problem: str
    why: str
    remedy: str
    ends_training: bool = False
