"""What one process of a load test sends: images in memory, and senders that tell locust's statistics of each request.

Locust itself is not imported here: its agent, its event and what it takes for failures are given.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.loadtest.replies import refusal, server_timing, socket_failure
from tao2serve.loadtest.sending import Reply, Sender
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["EndpointSender", "Image", "ToldSender", "headers", "load_images", "paths_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as it is sent; without a path if it was drawn."""

    path: Path | None
    body: bytes
    headers: dict[str, str]


def headers(suffix: str) -> dict[str, str]:
    """Return the headers of an image by its file name's suffix."""
    return {"Content-Type": IMAGE_MEDIA_TYPES[suffix.lower()], "Accept-Encoding": "gzip, deflate, br"}


def load_images(paths: tuple[Path, ...]) -> tuple[Image, ...]:
    """Read images into memory: reading files is no part of what is measured."""
    return tuple(Image(path=path, body=path.read_bytes(), headers=headers(path.suffix)) for path in paths)


def paths_of(images: tuple[Image, ...]) -> tuple[Path, ...]:
    return tuple(image.path for image in images if image.path is not None)


@dataclass(frozen=True, slots=True)
class EndpointSender:
    """Posts images to an endpoint through the agent of a locust session, and tells locust's statistics.

    What the session does around its agent for each request (names, contexts, checks of the answer) is done once here,
    or by us: measured, it took a fifth of a request's processor time.
    """

    agent: Any
    url: str
    label: str
    images: tuple[Image, ...]
    request_event: Any
    failures: tuple[type[BaseException], ...]  # what the agent raises

    def send(self, image: int) -> Reply:
        """Post an image; any answer but 200 is a failure with the server's `detail`."""
        sent = self.images[image]
        start_time, start_s = time.time(), time.perf_counter()
        response, exception, content = None, None, b""
        try:
            response = self.agent.urlopen(self.url, method="POST", payload=sent.body, headers=dict(sent.headers))
            content = response.content or b""
        except self.failures as raised:
            exception = raised
            response = response or getattr(raised, "response", None)
        latency_ms = (time.perf_counter() - start_s) * 1000
        status = response.status_code if response is not None else 0
        error = detail = ""
        if exception is not None:
            error, detail = socket_failure(exception)
        elif status != 200:
            error, detail = refusal(status, content.decode("utf-8", "replace"))
        self.request_event.fire(
            request_type="POST",
            name=self.label,
            response_time=latency_ms,
            response_length=len(content),
            exception=RuntimeError(f"{error}: {detail}" if detail else error) if error else None,
            context={},
            start_time=start_time,
            url=self.url,
            response=response,
        )
        timing_ms = None if error else server_timing(content)
        return Reply(
            latency_ms=latency_ms,
            status=status,
            error=error,
            detail=detail,
            timing_ms=timing_ms,
            sent_bytes=len(sent.body),
            received_bytes=len(content),
        )

    def close(self) -> None:
        self.agent.clientpool.close()


@dataclass(frozen=True, slots=True)
class ToldSender:
    """Tells locust's statistics what another sender did."""

    sender: Sender
    method: str
    label: str
    url: str
    request_event: Any

    def send(self, image: int) -> Reply:
        start_time = time.time()
        reply = self.sender.send(image)
        self.request_event.fire(
            request_type=self.method,
            name=self.label,
            response_time=reply.latency_ms,
            response_length=reply.received_bytes,
            exception=RuntimeError(f"{reply.error}: {reply.detail}") if reply.error else None,
            context={},
            start_time=start_time,
            url=self.url,
            response=None,
        )
        return reply

    def close(self) -> None:
        self.sender.close()
