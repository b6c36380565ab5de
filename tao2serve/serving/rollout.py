"""Changing what an alias routes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tao2serve.config import Settings
from tao2serve.errors import UsageError
from tao2serve.registry.operation import Operation
from tao2serve.serving.client import wait_for_answer
from tao2serve.serving.service import ServingService

__all__ = ["change_route", "with_canary"]


def with_canary(current: Mapping[int, float], version: int, percent: float) -> dict[int, float]:
    """Return the weights by which `version` gets `percent` of the requests, and the others share the rest as before."""
    if not 0 < percent <= 100:
        raise UsageError("--canary", f"is {percent:g}, not a percentage above 0 and up to 100")
    others = {other: weight for other, weight in current.items() if other != version and weight > 0}
    total = sum(others.values())
    if percent == 100 or not total:
        return {version: 1.0}
    share = percent / 100
    return {**{other: weight / total * (1 - share) for other, weight in others.items()}, version: share}


def change_route(
    service: ServingService,
    endpoint: str,
    weights: Mapping[int, float],
    *,
    operation: Operation,
    image: bytes,
    settings: Settings,
    on_news: Callable[[str], None],
) -> None:
    """Point the alias `endpoint` at versions by weight, and return when it answers with the heaviest."""
    before = service.state().weights(endpoint)
    operation.note(route_before=json.dumps({str(version): weight for version, weight in before.items()}))
    service.route(endpoint, weights)
    heaviest = max(weights, key=lambda version: weights[version])
    url = f"{service.base_url(settings)}/{endpoint}"
    wait_for_answer(url, image, timeout_s=settings.ready_timeout_s, version=heaviest, on_news=on_news)
    operation.note(route=json.dumps({str(version): weight for version, weight in weights.items()}))
