"""Reads something again and again in a thread of its own, with the time of each reading."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from tao2serve.errors import ServiceError

__all__ = ["Sample", "Sampled", "inside"]

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[T]):
    """One reading, at a moment of the machine's monotonic clock: the middle of the time that reading took."""

    at_s: float
    value: T


class Sampled(Generic[T]):
    """The readings of one source while the block runs, the first at once; use it as a context manager.

    `read` may raise: that reading is missing then, and `problem` says why. A defect in it ends no load test, which
    could not be told that its watching thread has died.
    """

    def __init__(self, read: Callable[[], T], *, every_s: float) -> None:
        self._read = read
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server side", daemon=True)
        self.samples: list[Sample[T]] = []
        self.problem = ""  # of the last reading that failed

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            self._take()
            # A slow reading delays the next one, which does not make up for it.
            due_s = max(due_s + self._every_s, time.monotonic())
            if self._ended.wait(due_s - time.monotonic()):
                return

    def _take(self) -> None:
        before_s = time.monotonic()
        try:
            value = self._read()
        except ServiceError as error:
            self.problem = f"{error.fact} ({error.evidence})" if error.evidence else error.fact
        except Exception as error:
            log.exception("a reading failed")
            self.problem = f"cannot be read ({type(error).__name__}: {error})"
        else:
            self.samples.append(Sample(at_s=(before_s + time.monotonic()) / 2, value=value))


def inside(samples: Sequence[Sample[T]], begin_s: float, end_s: float) -> list[Sample[T]]:
    """Return the samples that were taken between two moments, or none if there are not two of them."""
    found = [sample for sample in samples if begin_s <= sample.at_s <= end_s]
    return found if len(found) > 1 else []
