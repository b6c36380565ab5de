"""A clock that is wrong by $WRONG_CLOCK_S seconds, for the one process that has this folder on its PYTHONPATH.

libfaketime 0.9.10 breaks Python's `time.sleep`, which asks for absolute times of the monotonic clock.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from typing import Any

_WRONG_S = float(os.environ["WRONG_CLOCK_S"])
_BY = datetime.timedelta(seconds=_WRONG_S)
_time, _time_ns, _gmtime, _localtime, _datetime = (
    time.time, time.time_ns, time.gmtime, time.localtime, datetime.datetime
)  # fmt: skip


class _Meta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _datetime)


class _WrongDatetime(_datetime, metaclass=_Meta):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return super().now(tz) + _BY

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


def _wrong_time() -> float:
    # gRPC makes its deadlines here and keeps them in C, where the clock is right.
    return _time() + (0.0 if sys._getframe(1).f_globals.get("__name__", "").startswith("grpc") else _WRONG_S)


time.time = _wrong_time
time.time_ns = lambda: _time_ns() + int(_WRONG_S * 1e9)
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
datetime.datetime = _WrongDatetime  # type: ignore[misc]
