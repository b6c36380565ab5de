"""Times and ids: milliseconds that never repeat, so that ordering by time has no ties."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

_STEP = timedelta(milliseconds=1)


def new_id() -> str:
    """Return a fresh 32-digit hexadecimal id."""
    return uuid.uuid4().hex


def format_time(moment: datetime) -> str:
    """Render UTC time as ClearML does; the texts of two moments compare as the moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def parse_time(text: str) -> datetime | None:
    """Read an ISO time (UTC when it names no zone); None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def epoch_ms(text: str) -> int:
    """Milliseconds since 1970 of a time made by `format_time`."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def event_time(milliseconds: int) -> str:
    """The `@timestamp` of an event."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Clock:
    """Hands out times that strictly increase, in whole milliseconds."""

    def __init__(self) -> None:
        self._last = datetime.fromtimestamp(0, UTC)
        self._lock = threading.Lock()

    def now(self) -> str:
        """Return a time later than every time returned before."""
        moment = datetime.now(UTC)
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        with self._lock:
            self._last = max(moment, self._last + _STEP)
            return format_time(self._last)
