"""One load test of one candidate, and the journal that a run which was ended goes on from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tao2serve.tuning.candidate import Candidate

__all__ = ["Journal", "Measurement"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one block of load said; `reasons` say why it does not hold, none if it does.

    Where the load generator was the bottleneck, which `saturated` says, it says nothing of the candidate.
    """

    candidate: Candidate
    block: int  # 0: the survey; from 1: the finals
    throughput_rps: float
    p50_ms: float | None
    p99_ms: float | None
    requests: int = 0
    failures: int = 0
    memory_bytes: int | None = None  # resident, of Triton's processes together; None: they are not on this machine
    gpu_memory_bytes: int | None = None  # of the fullest GPU, whoever uses it
    reasons: tuple[str, ...] = ()
    saturated: str = ""  # a sentence

    @property
    def holds(self) -> bool:
        return not self.reasons and not self.saturated

    @property
    def why_not(self) -> tuple[str, ...]:
        """All that keeps it from being proposed."""
        return (*self.reasons, *filter(None, [self.saturated]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Measurement:
        """Raises TypeError and KeyError for anything else than `to_dict` gives."""
        said = dict(document)
        candidate = Candidate(**said.pop("candidate"))
        return cls(candidate=candidate, reasons=tuple(said.pop("reasons")), **said)


@dataclass(slots=True, kw_only=True)
class Journal:
    """Measurements, a line of JSON each, appended as they end; those of another `work` are kept and passed over.

    `work` is the digest of all that makes two measurements comparable: model, load, machine, gates.
    """

    path: Path
    work: str
    _known: dict[tuple[Candidate, int], Measurement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                said = json.loads(line)
                if said["work"] == self.work:
                    found = Measurement.from_dict(said["measurement"])
                    self._known[found.candidate, found.block] = found
            except (ValueError, TypeError, KeyError):  # the last line of a run that was killed may be torn
                log.info("%s has a line that cannot be read: %.80s", self.path, line)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, candidate: Candidate, block: int) -> Measurement | None:
        return self._known.get((candidate, block))

    def add(self, found: Measurement) -> None:
        """Keep a measurement, on the disk when this returns."""
        torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        with self.path.open("a", encoding="utf-8") as file:
            line = json.dumps({"work": self.work, "measurement": found.to_dict()})
            file.write(f"{chr(10) if torn else ''}{line}\n")
            file.flush()
            os.fsync(file.fileno())
        self._known[found.candidate, found.block] = found
