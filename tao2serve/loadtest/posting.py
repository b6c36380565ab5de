"""What one process of a load test posts to endpoints: images in memory, and who tells locust's statistics of requests.

Locust itself is not imported here: its event is given.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.loadtest.http_connections import HttpConnections, request_head
from tao2serve.loadtest.replies import refusal, server_timing, socket_failure
from tao2serve.loadtest.sending import Reply, Sender
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["EndpointSender", "Image", "ToldSender", "load_images", "paths_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as it is sent; without a path if it was drawn."""

    path: Path | None
    body: bytes
    media_type: str


def load_images(paths: tuple[Path, ...]) -> tuple[Image, ...]:
    """Read images into memory: reading files is no part of what is measured."""
    return tuple(
        Image(path=path, body=path.read_bytes(), media_type=IMAGE_MEDIA_TYPES[path.suffix.lower()]) for path in paths
    )


def paths_of(images: tuple[Image, ...]) -> tuple[Path, ...]:
    return tuple(image.path for image in images if image.path is not None)


class EndpointSender:
    """Posts images to an endpoint."""

    def __init__(self, url: str, images: tuple[Image, ...], *, timeout_s: float) -> None:
        self._images = images
        self._connections = HttpConnections(url, timeout_s=timeout_s)
        self._heads = {
            media_type: request_head(url, {"Content-Type": media_type, "Accept-Encoding": "gzip"})
            for media_type in {image.media_type for image in images}
        }

    def send(self, image: int) -> Reply:
        """Post an image; any answer but 200 is a failure with the server's `detail`."""
        sent = self._images[image]
        head, size = self._heads[sent.media_type], len(sent.body)
        started_s = time.perf_counter()
        try:
            answer = self._connections.exchange(head, sent.body)
        except Exception as raised:  # whatever it is, it is a failed request, and no end of the test
            latency_ms = (time.perf_counter() - started_s) * 1000
            error, detail = socket_failure(raised)
            return Reply(latency_ms=latency_ms, status=0, error=error, detail=detail, sent_bytes=size)
        latency_ms = (time.perf_counter() - started_s) * 1000
        error = detail = ""
        if answer.status != 200:
            error, detail = refusal(answer.status, answer.content.decode("utf-8", "replace"))
        return Reply(
            latency_ms=latency_ms,
            status=answer.status,
            error=error,
            detail=detail,
            timing_ms=None if error else server_timing(answer.content),
            sent_bytes=size,
            received_bytes=len(answer.content),
        )

    def close(self) -> None:
        self._connections.close()


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
            exception=RuntimeError(f"{reply.error}: {reply.detail}".removesuffix(": ")) if reply.error else None,
            context={},
            start_time=start_time,
            url=self.url,
            response=None,
        )
        return reply

    def close(self) -> None:
        self.sender.close()
