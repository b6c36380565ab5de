"""What a load generator needs of a target: send one image, and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

__all__ = ["Reply", "Sender", "asked_patiently"]

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one request; `error` is the kind of failure, empty if there was none."""

    latency_ms: float  # from the first byte sent to the last byte received
    status: int  # HTTP status, 0 if there was no answer; 200 for an answer over gRPC
    error: str = ""
    detail: str = ""
    timing_ms: Mapping[str, float] | None = None  # the server's own account, by stage
    sent_bytes: int = 0
    received_bytes: int = 0


class Sender(Protocol):
    """Sends images to one target; several greenlets may use it at once."""

    def send(self, image: int) -> Reply:
        """Send the image of that index, and wait for its whole answer; failures are replies, not exceptions."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def asked_patiently(ask: Callable[[], Answer], *, status: Callable[[Answer], int]) -> Answer:
    """Return what comes of asking; an error of the server (5xx) is asked about again twice, half a second apart."""
    for _ in range(2):
        answer = ask()
        if status(answer) < 500:
            return answer
        time.sleep(0.5)
    return ask()
