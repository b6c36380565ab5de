"""Ctrl-C, SIGTERM and a closed terminal: one way to end, and short stretches they must not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["SIGNALS", "Interrupts", "deferred_interrupts", "ended_by_signals", "heard_interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The handler that ends a command by KeyboardInterrupt, and remembers that it did.

    An extension module that is being imported turns KeyboardInterrupt into an ImportError, and ClearML's SDK has
    excepts that catch all there is: `came` tells that there was one, `heard` that it got through.
    """

    def __init__(self) -> None:
        self.came = False
        self.heard = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.came, self.heard = True, False
        raise KeyboardInterrupt


_of_this_process: Interrupts | None = None  # the SDK puts handlers of its own before it, so it cannot be asked for


@contextlib.contextmanager
def ended_by_signals() -> Iterator[Interrupts]:
    """Have SIGINT, SIGTERM and SIGHUP end the block alike; nohup's wish to ignore SIGHUP stands.

    The handlers stay, for the end of the process; what came counts as heard, since an exit code will tell of it.
    """
    global _of_this_process
    interrupts = Interrupts()
    if threading.current_thread() is threading.main_thread():
        _of_this_process = interrupts
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupts)
    try:
        yield interrupts
    finally:
        _of_this_process = None


@contextlib.contextmanager
def heard_interrupts() -> Iterator[None]:
    """Let an interrupt leave the block as KeyboardInterrupt, whatever caught it in there or made another error of it.

    It is raised once. Outside the main thread, which alone gets signals, and where interrupts are deferred, nothing
    is changed.
    """
    try:
        yield
    except KeyboardInterrupt:
        if _of_this_process is not None:
            _of_this_process.heard = True
        raise
    except Exception as error:
        if _missed():
            raise KeyboardInterrupt from error
        raise
    if _missed():
        raise KeyboardInterrupt


def _missed() -> bool:
    """Say whether an interrupt came that nobody heard; from then on it counts as heard."""
    interrupts = _of_this_process
    if interrupts is None or not interrupts.came or interrupts.heard:
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(signal.getsignal(signal.SIGINT), _Deferral):
        return False
    interrupts.heard = True
    return True


class _Deferral:
    """A signal handler that only remembers."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.came = True


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Let SIGINT, SIGTERM and SIGHUP wait until the block is done; if one came, KeyboardInterrupt is raised then.

    Gives a function that says whether one has come, for a block that can end itself early.
    A handler, not a mask or SIG_IGN: processes started inside would inherit those. A stretch inside another
    is part of the outer one. Outside the main thread, which alone gets signals, it does nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    outer = signal.getsignal(signal.SIGINT)
    if not in_main_thread or isinstance(outer, _Deferral):
        yield lambda: isinstance(outer, _Deferral) and outer.came
        return
    deferral = _Deferral()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, deferral)
    try:
        yield lambda: deferral.came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if deferral.came:
        if _of_this_process is not None:
            _of_this_process.came, _of_this_process.heard = True, False
        raise KeyboardInterrupt
