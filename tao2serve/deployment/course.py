"""How far a run came, noted by each step as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from tao2serve.serving.service import EndpointVersion

__all__ = ["Course", "Reached"]


class Reached(IntEnum):
    """How far a run came."""

    NOTHING = 0
    BEGUN = 1  # its operation is in ClearML
    PUBLISHED = 2
    NUMBERED = 3
    BRINGING = 4  # from here on the version is taken back, unless it was ready before
    SWITCHING = 5
    LIVE = 6


@dataclass(slots=True, kw_only=True)
class Course:
    """The run as far as it came; of its version what is known once it is numbered."""

    reached: Reached = Reached.NOTHING
    endpoint: EndpointVersion | None = None
    was_ready: bool = False  # the version answered before this run
    adopts: str = ""  # ClearML task of the dead run that it goes on with
    left: list[str] = field(default_factory=list)  # what this run could not take back

    def numbered(self, endpoint: EndpointVersion, *, was_ready: bool, adopts: str) -> None:
        """Note which version the run is about."""
        self.reached, self.endpoint, self.was_ready, self.adopts = Reached.NUMBERED, endpoint, was_ready, adopts
