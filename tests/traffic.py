"""A client that never stops asking: constant traffic, and what became of every request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One request: where and when it was sent, how long it took, the version in its answer, or what was wrong."""

    url: str
    sent: float
    seconds: float
    version: str = ""
    problem: str = ""


@dataclass(slots=True)
class Traffic:
    """Posts `image` to `urls` in turn at `rate` requests a second from several threads, until the block ends.

    A slot that comes due while all threads wait for an answer is sent late, never dropped.
    """

    urls: tuple[str, ...]
    image: bytes
    rate: float = 25.0
    threads: int = 10
    replies: list[Reply] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _workers: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        start = time.monotonic()
        for index in range(self.threads):
            worker = threading.Thread(
                target=self._go_on, args=(self.urls[index % len(self.urls)], start + index / self.rate), daemon=True
            )
            self._workers.append(worker)
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join(timeout=60)

    def problems(self) -> list[str]:
        """What was wrong with the requests that were lost."""
        return [reply.problem for reply in self.replies if reply.problem]

    def versions(self, *, since: float = 0.0) -> Counter[str]:
        """How many answers came from each version, of the requests sent after `since` (time.monotonic)."""
        return Counter(reply.version for reply in self.replies if reply.sent >= since and not reply.problem)

    def _go_on(self, url: str, due: float) -> None:
        period = self.threads / self.rate
        with httpx.Client(timeout=60.0, trust_env=False, headers={"Content-Type": "image/jpeg"}) as client:
            while not self._stop.is_set():
                if (early := due - time.monotonic()) > 0 and self._stop.wait(early):
                    return
                due = max(due + period, time.monotonic())
                self.replies.append(self._ask(client, url))

    def _ask(self, client: httpx.Client, url: str) -> Reply:
        sent = time.monotonic()
        version = problem = ""
        try:
            response = client.post(url, content=self.image)
            if response.status_code == 200:
                version = str(response.json()["model"]["version"])
            else:
                problem = f"{response.status_code}: {response.text[:200]}"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        return Reply(url=url, sent=sent, seconds=time.monotonic() - sent, version=version, problem=problem)
