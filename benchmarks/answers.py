"""Endpoints' answers, asked for one by one and held against each other: what answers other boxes is not compared."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from load_client import Connection

__all__ = ["alike", "ask"]

_SYNC_LIMIT_S = 60.0


def ask(url: str, picture: Path) -> dict[str, Any]:
    """Return an endpoint's answer, waiting until the inference service knows the endpoint and could load it."""
    deadline = time.monotonic() + _SYNC_LIMIT_S
    while True:
        connection = Connection(url)
        try:
            answer: dict[str, Any] = json.loads(connection.post(picture.read_bytes()))
            return answer
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        finally:
            connection.close()


def alike(one: Mapping[str, Any], other: Mapping[str, Any], *, within_pixels: float) -> bool:
    """Whether two answers hold the same boxes, in whatever order; corners may differ by `within_pixels`."""
    some, others = (
        sorted((found["label"], found["bbox"]) for found in answer["predictions"]) for answer in (one, other)
    )
    return len(some) == len(others) and all(
        label == wanted and all(math.isclose(a, b, abs_tol=within_pixels) for a, b in zip(box, target, strict=True))
        for (label, box), (wanted, target) in zip(some, others, strict=True)
    )
