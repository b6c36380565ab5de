"""The first requests after a model was loaded: what a user meets after a restart, and no warm-up shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import ServiceError
from tao2serve.loadtest.plan import images_within
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["FIRST_REQUESTS", "ColdStart", "first_requests"]

FIRST_REQUESTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """How long the models took to load, and the latency of the first requests, one after the other.

    Triton alone is cold, and with a warm-up in its configuration it has answered requests of its own before it says
    ready: that is in `load_s`. The processes of ClearML Serving are as they were, and so are the files in the page
    cache.
    """

    models: tuple[str, ...]
    load_s: float
    requests_ms: tuple[float, ...]

    def to_dict(self) -> dict[str, object]:
        return {
            "models": list(self.models),
            "load_s": round(self.load_s, 3),
            "requests_ms": [round(request_ms, 3) for request_ms in self.requests_ms],
        }


def first_requests(url: str, images: Path, *, timeout_s: float, count: int = FIRST_REQUESTS) -> tuple[float, ...]:
    """Post one image after the other on one connection, and return how long each took in milliseconds.

    Raises ServiceError for an answer other than 200, since a cold start that fails has no latency.
    """
    import httpx

    paths = images_within(images)
    taken_ms = []
    with httpx.Client(timeout=timeout_s, trust_env=False) as client:
        for index in range(count):
            path = paths[index % len(paths)]
            body, headers = path.read_bytes(), {"Content-Type": IMAGE_MEDIA_TYPES[path.suffix.lower()]}
            begun = time.monotonic()
            try:
                response = client.post(url, content=body, headers=headers)
            except httpx.HTTPError as error:
                evidence = f"{type(error).__name__}: {error}"
                raise ServiceError(
                    url, f"gave no answer to request {index + 1} after a load", evidence=evidence
                ) from error
            taken_ms.append((time.monotonic() - begun) * 1000)
            if response.status_code != 200:
                raise ServiceError(
                    url, f"answered {response.status_code} to request {index + 1} after a load",
                    evidence=" ".join(response.text.split())[:300],
                )  # fmt: skip
    return tuple(taken_ms)
