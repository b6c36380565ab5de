"""Ctrl-C, SIGTERM and a closed terminal: one way to end, and short stretches they must not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["Interrupts", "deferred_interrupts", "end_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The handler that ends a command by KeyboardInterrupt, and remembers that it did.

    An extension module that is being imported turns KeyboardInterrupt into an ImportError; `came` tells.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.came = True
        raise KeyboardInterrupt


def end_on_signals() -> Interrupts:
    """Have SIGINT, SIGTERM and SIGHUP end the command alike; nohup's wish to ignore SIGHUP stands."""
    interrupts = Interrupts()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupts)
    return interrupts


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
        raise KeyboardInterrupt
