"""Short stretches that Ctrl-C and SIGTERM must not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["deferred_interrupts"]


class _Deferral:
    """A signal handler that only remembers."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.came = True


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is done; if one came, KeyboardInterrupt is raised then.

    A handler, not a mask or SIG_IGN: processes started inside would inherit those. A stretch inside another
    is part of the outer one. Outside the main thread, which alone gets signals, it does nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or isinstance(signal.getsignal(signal.SIGINT), _Deferral):
        yield
        return
    deferral = _Deferral()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, deferral) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if deferral.came:
        raise KeyboardInterrupt
