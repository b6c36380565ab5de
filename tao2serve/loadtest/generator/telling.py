"""What a process says to the one that started it, and that it ends when that one is gone."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import gevent

from tao2serve.loadtest.cluster import Gathering
from tao2serve.loadtest.tally import Tally

__all__ = ["end_with", "report_progress", "tell"]

_INTERVAL_S = 0.5
_ENDED_EXIT = 4  # nobody is there who wants to know


def report_progress(counted: Tally | Gathering, progress_fd: int) -> None:
    """Write a progress line twice a second; without a reader the runner is gone, and this process ends."""
    while True:
        line = {
            "now_s": time.monotonic(),
            "window_start_s": counted.window_start_s,
            "window_end_s": counted.window_end_s,
            "requests": counted.requests,
            "failures": counted.failures,
        }
        tell(progress_fd, line)
        gevent.sleep(_INTERVAL_S)


def tell(progress_fd: int, line: dict[str, Any]) -> None:
    """Write a line to the runner, or end this process."""
    os.set_blocking(progress_fd, False)
    try:
        os.write(progress_fd, (json.dumps(line) + "\n").encode())
    except BlockingIOError:
        pass  # a runner that is suspended misses lines, no harm done
    except BrokenPipeError:
        os._exit(_ENDED_EXIT)


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone and could not end it."""
    while os.getppid() == parent:
        gevent.sleep(_INTERVAL_S)
    os._exit(_ENDED_EXIT)
