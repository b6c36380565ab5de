"""What becomes of a version whose deployment ends early, in a sentence for whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tao2serve.deployment.course import Course, Reached
from tao2serve.deployment.outcome import GateMissedError
from tao2serve.errors import Tao2ServeError
from tao2serve.steps import tell_aftermath

__all__ = ["aftermath", "aftermath_told"]

GOES_ON: Final = "the same command goes on with it"


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
        said, stays = aftermath(course)
        if not isinstance(error, Tao2ServeError):
            tell_aftermath(error, said)
        elif course.reached > Reached.NOTHING:
            error.aftermath = said
            if stays and said not in error.hint:
                error.hint = "; ".join(filter(None, (error.hint, said)))
        raise


def aftermath(course: Course) -> tuple[str, bool]:
    """Return what became of the version, and whether something stays for a later run to see to."""
    reached, endpoint = course.reached, course.endpoint
    if endpoint is None:
        if reached == Reached.PUBLISHED:
            return "no version was begun; its model stays in ClearML, and is not uploaded again", False
        return "no version was begun" if reached == Reached.BEGUN else "nothing was begun", False
    version, look = f"version {endpoint.version}", f"tao2serve status {endpoint.name} tells"
    if reached == Reached.LIVE:
        return f"{version} is live; the same command completes what ClearML keeps of it", True
    if course.was_ready:
        if reached == Reached.SWITCHING:
            return f"{version} stays ready, and whether the alias was switched, {look}; {GOES_ON}", True
        return f"{version} stays ready, as it was before, and its alias is as it was; {GOES_ON}", True
    if reached < Reached.BRINGING:
        if course.adopts:
            return f"{version} stays as the run before left it; {GOES_ON}", True
        return f"nothing of {version} was begun", False
    if not course.left:
        return f"{version} was taken back, and the alias is as it was", False
    if reached == Reached.SWITCHING:
        return f"{version} stays, and whether the alias was switched to it, {look}; {GOES_ON}", True
    return (
        f"what was made of {version} stays, and the alias is as it was; {GOES_ON}, and a deployment of something else "
        "takes it away",
        True,
    )
