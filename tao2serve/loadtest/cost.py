"""What answers cost: a price per hour of what serves, over the throughput that was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tao2serve.errors import UsageError
from tao2serve.loadtest.result import LoadResult

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of 1,000 answered images, in the currency of the price; `basis` says in a sentence what that rests on."""

    price_per_hour: float
    throughput_rps: float
    per_1000_images: float
    basis: str

    def to_dict(self) -> dict[str, object]:
        return {
            "price_per_hour": self.price_per_hour,
            "throughput_rps": round(self.throughput_rps, 3),
            "per_1000_images": float(f"{self.per_1000_images:.6g}"),
            "basis": self.basis,
        }


def cost_of(result: LoadResult, *, price_per_hour: float) -> Cost | None:
    """Return what 1,000 images cost at the measured throughput of successful answers, None if there were none.

    A request is one image. Raises UsageError for a price that is none.
    """
    if not 0 < price_per_hour < math.inf:
        raise UsageError("price per hour", f"{price_per_hour:g} is no price", hint="more than 0")
    if not result.throughput_rps:
        return None
    return Cost(
        price_per_hour=price_per_hour,
        throughput_rps=result.throughput_rps,
        per_1000_images=price_per_hour * 1000 / (3600 * result.throughput_rps),
        basis=_basis(result),
    )


def _basis(result: LoadResult) -> str:
    basis = f"at the measured {result.throughput_rps:.4g} successful answers per second"
    if result.client.saturated:
        return f"{basis}, which the client limited: what serves can do more, for less"
    if result.plan.is_open:
        return f"{basis}, which the offered rate sets: capacity may be higher, and the cost at capacity lower"
    return f"{basis}, which these users reach; more users may reach more, for less"
