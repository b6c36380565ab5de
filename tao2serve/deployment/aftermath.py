"""What becomes of a version whose deployment ends early, in a sentence for whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tao2serve.deployment.candidate import Candidate
from tao2serve.deployment.job import Job
from tao2serve.deployment.outcome import GateMissedError
from tao2serve.errors import Tao2ServeError

__all__ = ["Course", "Reached", "aftermath", "aftermath_told"]

GOES_ON: Final = "the same command goes on with it"


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
    """The run as far as it came, for whoever tells what is left of it."""

    reached: Reached = Reached.NOTHING
    job: Job | None = None
    candidate: Candidate | None = None


@contextmanager
def aftermath_told() -> Iterator[Course]:
    """Give what ends the block the sentence of what is left: put all that takes something back inside.

    An error of ours carries it (`aftermath`), with a hint too if something stays that a later run sees to; anything
    else, as an interrupt, gets it as a note.
    """
    course = Course()
    try:
        yield course
    except GateMissedError:  # its deployment says it
        raise
    except BaseException as error:
        said, stays = aftermath(course.reached, course.candidate, course.job.left if course.job else ())
        if not isinstance(error, Tao2ServeError):
            error.add_note(f"aftermath: {said}")
        elif course.reached > Reached.NOTHING:
            error.aftermath = said
            if stays and said not in error.hint:
                error.hint = "; ".join(filter(None, (error.hint, said)))
        raise


def aftermath(reached: Reached, candidate: Candidate | None, left: Sequence[str]) -> tuple[str, bool]:
    """Return what became of the version, and whether something stays for a later run to see to.

    `left` is what could not be taken back.
    """
    if candidate is None:
        if reached == Reached.PUBLISHED:
            return "no version was begun; its model stays in ClearML, and is not uploaded again", False
        return "no version was begun" if reached == Reached.BEGUN else "nothing was begun", False
    name = candidate.endpoint.name
    version = f"version {candidate.endpoint.version}"
    look = f"tao2serve status {name} tells"
    if reached == Reached.LIVE:
        return f"{version} is live; the same command completes what ClearML keeps of it", True
    if candidate.was_ready:
        if reached == Reached.SWITCHING:
            return f"{version} stays ready, and whether the alias was switched, {look}; {GOES_ON}", True
        return f"{version} stays ready, as it was before, and its alias is as it was; {GOES_ON}", True
    if reached < Reached.BRINGING:
        if candidate.adopts:
            return f"{version} stays as the run before left it; {GOES_ON}", True
        return f"nothing of {version} was begun", False
    if not left:
        return f"{version} was taken back, and the alias is as it was", False
    if reached == Reached.SWITCHING:
        return f"{version} stays, and whether the alias was switched to it, {look}; {GOES_ON}", True
    return (
        f"what was made of {version} stays, and the alias is as it was; {GOES_ON}, and a deployment of something else "
        "takes it away",
        True,
    )
