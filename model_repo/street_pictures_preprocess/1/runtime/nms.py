"""Greedy non-maximum suppression, over all classes at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .candidates import Candidates, Float64, Index, Mask, overlap
from .pairs import Pairs, Sweep, sweep_order

__all__ = ["nms"]

_PIXEL = 1.0
# Pairs looked at at once in one group. Where more boxes meet, few of them stay, and these are compared one by one.
_CROWDED = 1 << 20


def nms(boxes: Candidates, *, limit: Float64) -> Index:
    """Return the boxes that stay, in their order: in each group the best covered one, and so on.

    A box goes if its IoU with one that stays is above `limit` (per box, the same for a class). Of boxes with the same
    coverage the earlier one comes first. Areas count one pixel more on each side, as tao_deploy's do.
    """
    order = sweep_order(boxes)
    boxes, limit = boxes.take(order), limit.take(order)
    rank = np.empty(len(boxes), dtype=np.int64)
    rank[np.lexsort((order, -boxes.coverage))] = np.arange(len(boxes))
    sweep = Sweep.of(boxes, share=1.0 - limit, pixel=_PIXEL)
    crowded = np.bincount(boxes.group, weights=sweep.count) > _CROWDED
    if crowded.any():
        sweep = replace(sweep, count=np.where(crowded.take(boxes.group), 0, sweep.count))
    stays = _survivors(len(boxes), *_rivals(sweep, limit, rank))
    for group in np.flatnonzero(crowded):
        members = np.flatnonzero(boxes.group == group)
        stays[members] = False
        stays[_one_by_one(boxes, members[np.argsort(rank[members])], limit=limit[members[0]])] = True
    return np.sort(order[stays])


def _rivals(sweep: Sweep, limit: Float64, rank: Index) -> Pairs:
    """Return all pairs that overlap too much, the better box first."""
    better, worse = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    for piece in sweep.pieces():
        i, j = piece.pairs(sweep.aligned(piece))
        at = (sweep.overlaps((i, j)) > limit.take(i)).nonzero()[0]
        i, j = i.take(at), j.take(at)
        ahead = rank.take(i) < rank.take(j)
        # Half the size: there may be many.
        better.append(np.where(ahead, i, j).astype(np.int32))
        worse.append(np.where(ahead, j, i).astype(np.int32))
    return np.concatenate(better), np.concatenate(worse)


def _survivors(count: int, better: Index, worse: Index) -> Mask:
    """Say which of `count` boxes stay, given all pairs that cannot both.

    Round by round: a box that meets no better one among those still open stays, and those it meets go.
    """
    stays = np.ones(count, dtype=np.bool_)
    while len(better):
        beaten = np.zeros(count, dtype=np.bool_)
        beaten[worse] = True
        waits = beaten.take(better)
        stays[worse[~waits]] = False
        waits &= stays.take(better)
        waits &= stays.take(worse)
        at = waits.nonzero()[0]
        better, worse = better.take(at), worse.take(at)
    return stays


def _one_by_one(boxes: Candidates, queue: Index, *, limit: float) -> Index:
    """Return which boxes of a queue of one group, best first, stay: memory for one row of overlaps, however many."""
    stay = []
    while len(queue):
        best, queue = queue[:1], queue[1:]
        stay.append(best)
        shared = overlap(boxes.ltrb[best], boxes.ltrb[queue], pixel=_PIXEL)
        queue = queue[shared <= limit]
    return np.concatenate(stay)
