"""Which image a request sends, and to which target; pure and seeded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from tao2serve.loadtest.plan import Order

__all__ = ["image_order", "target_order"]


def image_order(count: int, order: Order, *, seed: int, sender: int, senders: int) -> Iterator[int]:
    """Yield without end the indices, below `count`, of the images that one of `senders` sends.

    In `cycle` senders start at different images, so that not all send the largest one at the same time; in
    `sample` each draws with replacement, by the seed and its own number.
    """
    if order == "sample":
        draw = random.Random(f"images/{seed}/{sender}")  # noqa: S311
        return (draw.randrange(count) for _ in itertools.repeat(None))
    first = sender * count // max(senders, 1) % count
    return itertools.chain(range(first, count), itertools.cycle(range(count)))


def target_order(weights: Sequence[float], *, seed: int, sender: int) -> Iterator[int]:
    """Yield without end the index of the target of each request, drawn by weight."""
    if len(weights) == 1:
        return itertools.repeat(0)
    draw = random.Random(f"targets/{seed}/{sender}")  # noqa: S311
    bounds = list(itertools.accumulate(weights))
    indices = range(len(weights))
    return (draw.choices(indices, cum_weights=bounds)[0] for _ in itertools.repeat(None))
