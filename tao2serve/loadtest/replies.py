"""What an endpoint's answer, or what came instead of one, says."""

from __future__ import annotations

import errno
import json
import re

from tao2serve.loadtest.checks import are_timings

__all__ = ["AWAY", "DETAIL_LIMIT", "refusal", "server_timing", "socket_failure"]

AWAY = ("connection refused", "connection closed")  # kinds of failure of a server that is not there
_TIMING = re.compile(rb'"timing_ms"\s*:\s*(\{[^{}]*\})')
DETAIL_LIMIT = 300  # characters of a server's text that are worth a row in a report


def refusal(status: int, text: str, *, member: str = "detail") -> tuple[str, str]:
    """Return kind and detail of an answer other than 200; what the server says of it is that member, if it has one."""
    text = text[: 10 * DETAIL_LIMIT]
    try:
        detail = json.loads(text)[member]
        text = detail if isinstance(detail, str) else json.dumps(detail)
    except (ValueError, KeyError, TypeError):
        pass  # not every server answers in JSON
    return f"HTTP {status}", " ".join(text.split())[:DETAIL_LIMIT]


def socket_failure(exception: BaseException) -> tuple[str, str]:
    """Name a failure below HTTP; geventhttpclient wraps some, a timeout for one, as `original`."""
    cause = getattr(exception, "original", None) or exception
    text = f"{cause}"[:DETAIL_LIMIT]
    # gevent's own Timeout is no TimeoutError
    timed_out = isinstance(cause, TimeoutError) or type(cause).__name__ == "Timeout"
    if timed_out or getattr(cause, "errno", None) == errno.ETIMEDOUT:
        return "timeout", ""
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused", ""
    if isinstance(cause, ConnectionError | BrokenPipeError) or type(cause).__name__ == "HTTPConnectionClosed":
        return "connection closed", text
    return type(cause).__name__, text


def server_timing(content: bytes) -> dict[str, float] | None:
    """Return the server's `timing_ms`, None if the answer has none, or one that cannot be (checks.are_timings).

    Only that member is read: to read all detections of an answer would take the generator's time, and inside a text
    of JSON its quotes would be escaped.
    """
    found = _TIMING.search(content)
    if found is None:
        return None
    try:
        timing_ms = json.loads(found.group(1))
    except (ValueError, RecursionError):
        return None
    return {stage: float(duration) for stage, duration in timing_ms.items()} if are_timings(timing_ms) else None
