"""Steps of something slow: named, timed, watched."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from tao2serve.errors import Tao2ServeError
from tao2serve.interrupts import deferred_interrupts, heard_interrupts

__all__ = ["WARNING", "Step", "StepEvent", "Steps", "attempt", "note_of", "tell_aftermath", "undone_on_failure"]

log = logging.getLogger(__name__)

WARNING: Final = "warning: "  # how the detail of a step begins that went on in spite of something


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """What a watcher is told: a step started, has news, is done, or failed; `detail` is one line."""

    kind: Literal["started", "news", "done", "failed"]
    name: str
    detail: str = ""
    seconds: float = 0.0


Watch: TypeAlias = Callable[[StepEvent], None]


@dataclass(slots=True, kw_only=True)
class Step:
    """The running step; `note` says in one line what came of it, `news` what it is doing."""

    name: str
    watch: Watch
    detail: str = ""

    def note(self, detail: str) -> None:
        self.detail = detail

    def news(self, detail: str) -> None:
        _tell(self.watch, StepEvent(kind="news", name=self.name, detail=detail))


@dataclass(slots=True)
class Steps:
    """The steps done so far, in order. One that raises is reported as failed, and named in the error.

    An interrupt that something in a step swallowed is raised at its end.
    """

    watch: Watch = lambda _event: None
    done: list[StepEvent] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        step = Step(name=name, watch=self.watch)
        _tell(self.watch, StepEvent(kind="started", name=name))
        start = time.monotonic()
        try:
            with heard_interrupts():
                yield step
        except BaseException as error:
            seconds = time.monotonic() - start
            _tell(self.watch, StepEvent(kind="failed", name=name, detail=str(error), seconds=seconds))
            if isinstance(error, Tao2ServeError):
                error.step = error.step or name
            else:
                error.add_note(f"step: {name}")
            raise
        event = StepEvent(kind="done", name=name, detail=step.detail, seconds=time.monotonic() - start)
        self.done.append(event)
        _tell(self.watch, event)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the `steps` member of a JSON document."""
        return [{"name": event.name, "detail": event.detail, "seconds": round(event.seconds, 3)} for event in self.done]


def tell_aftermath(error: BaseException, said: str) -> None:
    """Have an error say what it leaves behind, unless it says so already; anything but our own gets a note."""
    if isinstance(error, Tao2ServeError):
        error.aftermath = error.aftermath or said
    else:
        error.add_note(f"aftermath: {said}")


def note_of(error: BaseException, name: str) -> str:
    """Return what is noted of an error as `NAME: …`, or of the one it came up in; "" if nothing is.

    A second Ctrl-C comes up while the first is being seen to, and knows nothing of the step.
    """
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        for note in getattr(found, "__notes__", ()):
            if note.startswith(f"{name}: "):
                return str(note).partition(": ")[2]
        if said := getattr(found, name, "") if isinstance(found, Tao2ServeError) else "":
            return str(said)
        found = found.__cause__ or found.__context__
    return ""


@contextmanager
def undone_on_failure() -> Iterator[ExitStack]:
    """Yield a stack of things to undo, last first, if the block fails; `pop_all()` makes them stay.

    An interrupt waits until all is undone. What cannot be undone is logged: the first failure is what the user
    must see.
    """
    undo = ExitStack()
    try:
        yield undo
    except BaseException:
        with deferred_interrupts():
            undo.close()
        raise


def attempt(undo: Callable[[], object]) -> None:
    """Do what undoes something; failing at it is logged."""
    try:
        undo()
    except Exception:
        log.warning("not undone", exc_info=True)


def _tell(watch: Watch, event: StepEvent) -> None:
    """Watchers only look on: a terminal or pipe that is gone stops no work, and no tidying up."""
    with suppress(OSError):
        watch(event)
