"""Everything tao2serve raises on purpose.

    Tao2ServeError      exit 1   a defect of ours
    ├── UsageError      exit 2   wrong usage or configuration
    ├── InputError      exit 3   bad input: a file, a spec, a model that is not there or not supported
    ├── ToolError       exit 4   a tool or dependency is missing or failed
    ├── ServiceError    exit 5   a service refused or cannot be reached
    ├── NotReadyError   exit 6   something was not ready in time
    ├── ParityError     exit 7   the built artifact does not give the same numbers as its source
    └── GateError       exit 8   a load-test gate was missed

An error reads *subject, fact, evidence, hint, log*: what it is about, what is wrong with it, what was seen,
what mends it, and where the full log lies. Subject and fact make one sentence: the fact begins with its verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "GateError",
    "InputError",
    "NotReadyError",
    "ParityError",
    "ServiceError",
    "Tao2ServeError",
    "ToolError",
    "UsageError",
]


class Tao2ServeError(Exception):
    """Base of the tree; carries the five parts of an error text."""

    exit_code = 1

    def __init__(
        self,
        subject: str,
        fact: str,
        *,
        evidence: str = "",
        hint: str = "",
        log: Path | None = None,
    ) -> None:
        super().__init__(f"{subject} {fact}")
        self.subject = subject
        self.fact = fact
        self.evidence = evidence
        self.hint = hint
        self.log = log
        self.step = ""  # the step it ended, filled in by Steps
        self.aftermath = ""  # what became of what was being made, filled in by who took it back
        self.details: dict[str, Any] = {}  # further members of the JSON document, for a program to read

    def to_dict(self) -> dict[str, str]:
        """Return the `error` member of the JSON document that `--json` prints; absent parts are empty."""
        return {
            "subject": self.subject,
            "fact": self.fact,
            "evidence": self.evidence,
            "hint": self.hint,
            "log": str(self.log) if self.log else "",
        }


class UsageError(Tao2ServeError):
    """Wrong usage or configuration."""

    exit_code = 2


class InputError(Tao2ServeError):
    """Bad input: a file, a spec or a model that is not there, not readable or not supported."""

    exit_code = 3


class ToolError(Tao2ServeError):
    """A tool or dependency is missing or failed."""

    exit_code = 4


class ServiceError(Tao2ServeError):
    """A service refused, answered nonsense or cannot be reached."""

    exit_code = 5


class NotReadyError(Tao2ServeError):
    """Something was not ready in time."""

    exit_code = 6


class ParityError(Tao2ServeError):
    """The built artifact does not give the numbers of its source."""

    exit_code = 7


class GateError(Tao2ServeError):
    """A load-test gate was missed."""

    exit_code = 8
