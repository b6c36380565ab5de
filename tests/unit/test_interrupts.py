"""Interrupts reach the command, whatever catches them on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tao2serve import interrupts
from tao2serve.errors import ServiceError
from tao2serve.interrupts import deferred_interrupts, ended_by_signals, heard_interrupts
from tao2serve.steps import Steps, note_of


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """This process is a command, and gets its own handlers back."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    with ended_by_signals():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


def swallow() -> None:
    """Interrupt this process inside an except that catches everything, as the SDK has them."""
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_step_ends_interrupted_though_the_interrupt_was_swallowed_in_it() -> None:
    """KeyboardInterrupt at the end of the step, which is not done, and is named."""
    steps = Steps()
    with pytest.raises(KeyboardInterrupt) as caught, steps.step("register"):
        swallow()
    assert steps.done == []
    assert note_of(caught.value, "step") == "register"


def test_an_error_that_an_interrupt_was_made_into_is_an_interrupt() -> None:
    """What the code made of it is the cause."""
    with pytest.raises(KeyboardInterrupt) as caught, Steps().step("register"):
        swallow()
        raise ServiceError("ClearML", "did not answer")
    assert isinstance(caught.value.__cause__, ServiceError)


def test_an_interrupt_is_raised_once() -> None:
    """What is tidied up in steps after it goes through; a second interrupt is one of its own."""
    steps = Steps()
    with pytest.raises(KeyboardInterrupt), steps.step("register"):
        os.kill(os.getpid(), signal.SIGINT)
    with steps.step("undo"):
        pass
    with pytest.raises(KeyboardInterrupt), steps.step("undo more"):
        swallow()
    assert [event.name for event in steps.done] == ["undo"]


def test_an_interrupt_that_waited_and_was_swallowed_then_is_raised_too() -> None:
    """A deferred one is raised at the end of its stretch, by code that something else called."""

    def stretch() -> None:
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), heard_interrupts(), contextlib.suppress(BaseException):
        stretch()


def test_nothing_is_raised_where_interrupts_wait_or_in_another_thread() -> None:
    """Both belong to something that ends by itself; the main thread hears it afterwards."""
    with pytest.raises(KeyboardInterrupt), heard_interrupts():
        swallow()
        with deferred_interrupts(), Steps().step("undo"):
            pass
        ended: list[str] = []

        def work() -> None:
            with Steps().step("elsewhere"):
                pass
            ended.append("well")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert ended == ["well"]


def test_what_came_to_a_command_that_has_ended_interrupts_no_other() -> None:
    """Its exit code told of it."""
    with ended_by_signals():
        swallow()
    with ended_by_signals(), Steps().step("another"):
        pass
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    with Steps().step("nobody's"):
        pass


def test_errors_stay_what_they_are_when_nobody_interrupted() -> None:
    """No interrupt, no change."""
    with pytest.raises(ServiceError), Steps().step("register"):
        raise ServiceError("ClearML", "did not answer")
