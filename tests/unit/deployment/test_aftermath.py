"""What a deployment that ends early says of its version."""

from __future__ import annotations

import pytest

from tao2serve.deployment.aftermath import aftermath, aftermath_told
from tao2serve.deployment.course import Course, Reached
from tao2serve.errors import InputError, ServiceError
from tao2serve.serving.service import EndpointVersion
from tao2serve.steps import Steps, note_of


def course_of(reached: Reached, *left: str, was_ready: bool = False, adopts: str = "") -> Course:
    course = Course(left=[*left])
    begin(course, reached, was_ready=was_ready, adopts=adopts)
    return course


def begin(course: Course, reached: Reached, *, was_ready: bool = False, adopts: str = "") -> None:
    if reached >= Reached.NUMBERED:
        endpoint = EndpointVersion(name="street", version=4, base_url="http://x/serve")
        course.numbered(endpoint, was_ready=was_ready, adopts=adopts)
    course.reached = reached


@pytest.mark.parametrize(
    ("course", "says", "stays"),
    [
        (course_of(Reached.NOTHING), "nothing was begun", False),
        (course_of(Reached.BEGUN), "no version was begun", False),
        (course_of(Reached.PUBLISHED), "its model stays in ClearML", False),
        (course_of(Reached.NUMBERED), "nothing of version 4 was begun", False),
        (course_of(Reached.NUMBERED, adopts="dead"), "as the run before left it", True),
        (course_of(Reached.BRINGING), "version 4 was taken back", False),
        (course_of(Reached.SWITCHING), "version 4 was taken back", False),
        (course_of(Reached.BRINGING, "it"), "what was made of version 4 stays", True),
        (course_of(Reached.SWITCHING, "it"), "whether the alias was switched to it", True),
        (course_of(Reached.BRINGING, was_ready=True), "version 4 stays ready, as it was before", True),
        (course_of(Reached.SWITCHING, was_ready=True), "tao2serve status street tells", True),
        (course_of(Reached.LIVE), "version 4 is live", True),
    ],
)
def test_what_becomes_of_a_version(course: Course, says: str, stays: bool) -> None:
    """By how far the run came, whether the version was ready before it, and what could not be taken back."""
    said, is_for_later = aftermath(course)
    assert says in said
    assert is_for_later is stays
    assert ("the same command" in said) is stays


def test_an_error_of_ours_says_it_once_and_names_its_step() -> None:
    """In the hint if a later run has to see to something; the same error may come by twice."""
    gone = ServiceError("ClearML server http://x", "gave no answer for 60 s", hint="start it")
    for _ in range(2):
        with pytest.raises(ServiceError), aftermath_told() as course:
            begin(course, Reached.BRINGING)
            course.left.append("all of it")
            with Steps().step("load on Triton"):
                raise gone
    assert gone.hint.startswith("start it; what was made of version 4 stays")
    assert gone.hint.count("version 4") == 1
    assert gone.step == "load on Triton"


def test_what_was_refused_before_anything_was_begun_says_nothing_more() -> None:
    """A file that is not there is all there is to say."""
    refused = InputError("x.hdf5", "is not there")
    with pytest.raises(InputError), aftermath_told():
        raise refused
    assert refused.aftermath == refused.hint == ""


def test_an_interrupt_is_noted_and_so_is_a_second_one_while_the_first_is_seen_to() -> None:
    """The second comes up without notes of its own step; what became of the version is known at the end."""
    with pytest.raises(KeyboardInterrupt) as caught, aftermath_told() as course:
        begin(course, Reached.BRINGING)
        try:
            with Steps().step("load on Triton"):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise KeyboardInterrupt  # noqa: B904 - as a signal does
    assert note_of(caught.value, "step") == "load on Triton"
    assert note_of(caught.value, "aftermath") == "version 4 was taken back, and the alias is as it was"
