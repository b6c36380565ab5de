"""How much of a change may be noise: confidence intervals by a moving-block bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Interval", "percentile_change", "throughput_change"]

Interval: TypeAlias = tuple[float, float]  # of a change as a part of the old value, 95 % confidence

_RESAMPLES: Final = 400
_CONFIDENCE_PERCENT: Final = (2.5, 97.5)
# With fewer requests beyond a percentile a bootstrap only repeats the few slowest ones.
_BEYOND: Final = 5
_FEWEST_INTERVALS: Final = 5
_SEED: Final = 1


def percentile_change(old: Sequence[float], new: Sequence[float], percent: float) -> Interval | None:
    """Return the interval of the change of a percentile of two runs' latencies, each in the order of their start.

    None if fewer than five requests of either lie beyond the percentile.
    """
    import numpy as np

    if min(len(old), len(new)) * (100 - percent) < 100 * _BEYOND:
        return None
    random = np.random.default_rng(_SEED)
    before = _resampled(np.asarray(old, dtype=np.float64), percent, random)
    after = _resampled(np.asarray(new, dtype=np.float64), percent, random)
    return _interval(before, after)


def throughput_change(old: Sequence[float], new: Sequence[float]) -> Interval | None:
    """Return the interval of the change of the mean of two runs' throughput by interval; None below five of them.

    The intervals are equally long and in order: they are drawn in blocks, as requests are.
    """
    import numpy as np

    if min(len(old), len(new)) < _FEWEST_INTERVALS:
        return None
    random = np.random.default_rng(_SEED)
    means = []
    for rates in (np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)):
        means.append(np.array([rates[_drawn(len(rates), random)].mean() for _ in range(_RESAMPLES)]))
    return _interval(*means)


def _resampled(values: NDArray[np.float64], percent: float, random: Any) -> NDArray[np.float64]:
    """Return the percentile (nearest rank) of each resample.

    Requests that lie side by side share a stall, so they are drawn in blocks, of the square root of their number:
    drawn one by one they would make the interval too narrow.
    """
    import numpy as np

    count = len(values)
    rank = max(math.ceil(count * percent / 100), 1) - 1
    found = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        found[index] = np.partition(values[_drawn(count, random)], rank)[rank]
    return found


def _drawn(count: int, random: Any) -> NDArray[np.intp]:
    """Return the indices of one resample: blocks of the square root of the count, the last one goes on at the first."""
    import numpy as np

    block = math.isqrt(count)
    starts = random.integers(0, count, size=math.ceil(count / block))
    indices: NDArray[np.intp] = (starts[:, None] + np.arange(block)).ravel()[:count] % count
    return indices


def _interval(before: NDArray[np.float64], after: NDArray[np.float64]) -> Interval | None:
    import numpy as np

    if not before.all():
        return None
    low, high = np.percentile(after / before - 1, _CONFIDENCE_PERCENT)
    return float(low), float(high)
