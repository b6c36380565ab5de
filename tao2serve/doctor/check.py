"""A check's result, and running many at once, none of which may hold up the others."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

__all__ = ["Check", "Examination", "Status", "examine", "without_secrets"]

Status: TypeAlias = Literal["ok", "missing", "wrong", "skipped"]
_USER_OF_URL: Final = re.compile(r"(?<=://)[^/@\s]+@")
_SHORTEST_SECRET: Final = 6  # a shorter one would blot out words that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing.

    `missing` is what is not here and nobody asked for; `wrong` is what is here, or configured, and does not work.
    """

    group: str
    name: str
    status: Status
    fact: str
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Checks that follow from each other: they come one by one, and share a time limit."""

    group: str
    name: str
    run: Callable[[], Iterator[Check]]
    limit_s: float = 5.0


class _Running:
    """One examination in a thread of its own, which is left alone when its time is over."""

    def __init__(self, examination: Examination) -> None:
        self.examination = examination
        self.found: list[Check] = []
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=examination.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for check in self.examination.run():
                self.found.append(check)
        except Exception as error:  # a check that breaks must not keep the others from being told
            self.found.append(self._broken(f"{type(error).__name__}: {error}"))

    def wait(self) -> tuple[Check, ...]:
        limit_s = self.examination.limit_s
        self._thread.join(max(0.0, self._started + limit_s - time.monotonic()))
        found = tuple(self.found)
        if not self._thread.is_alive():
            return found
        return (*found, self._broken(f"no answer within {limit_s:g} s"))

    def _broken(self, evidence: str) -> Check:
        examination = self.examination
        return Check(
            group=examination.group, name=examination.name, status="wrong", fact="could not be checked",
            evidence=evidence,
        )  # fmt: skip


def examine(examinations: Sequence[Examination], *, secrets: Callable[[], Sequence[str]]) -> tuple[Check, ...]:
    """Run all at once and return their checks in the order given; takes no longer than the longest limit.

    What `secrets` returns at the end is blotted out wherever it stands, and so are users and passwords in URLs.
    """
    running = [_Running(examination) for examination in examinations]
    found = [check for each in running for check in each.wait()]
    hidden = tuple(secrets())
    return tuple(
        replace(
            check,
            fact=without_secrets(check.fact, hidden),
            evidence=without_secrets(check.evidence, hidden),
            remedy=without_secrets(check.remedy, hidden),
        )
        for check in found
    )


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """Return the text without these words, and without users and passwords in URLs."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _USER_OF_URL.sub("***@", text)
