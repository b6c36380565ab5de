"""Which weights an alias gets: decided from values alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tao2serve.errors import UsageError

__all__ = ["check_percent", "described", "route_from_json", "route_to_json", "with_canary"]

LEAST_PERCENT: Final = 0.01


def check_percent(percent: float) -> None:
    """Raise UsageError for a share of the requests that no version can be given."""
    if not LEAST_PERCENT <= percent <= 100:
        raise UsageError(
            "--canary",
            f"is {percent:g}, not a percentage from {LEAST_PERCENT} to 100",
            hint="for example: --canary 10; a version that is to get nothing: tao2serve rollback ENDPOINT, or promote "
            "another",
        )


def with_canary(current: Mapping[int, float], version: int, percent: float) -> dict[int, float]:
    """Return the weights by which `version` gets `percent` of the requests, and the others share the rest as before.

    They add up to 1 and are all above 0; the version gets everything if no other is routed to. Raises UsageError for
    a percentage outside 0.01 … 100.
    """
    check_percent(percent)
    others = {other: weight for other, weight in current.items() if other != version and weight > 0}
    total = sum(others.values())
    if percent == 100 or not total:
        return {version: 1.0}
    share = percent / 100
    rest = {other: weight / total * (1 - share) for other, weight in others.items()}
    return dict(sorted({**{other: weight for other, weight in rest.items() if weight > 0}, version: share}.items()))


def described(weights: Mapping[int, float]) -> str:
    """Return the route in words: `version 3: 90 %, version 4: 10 %`."""
    return (
        ", ".join(f"version {version}: {weight * 100:.4g} %" for version, weight in sorted(weights.items())) or "none"
    )


def route_to_json(weights: Mapping[int, float]) -> str:
    """Return the property `route` of an operation."""
    return json.dumps({str(version): round(weight, 9) for version, weight in sorted(weights.items())})


def route_from_json(text: str) -> dict[int, float] | None:
    """Return the weights of a property `route`; None if there is none, or it cannot be read."""
    try:
        return {int(version): float(weight) for version, weight in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return None
