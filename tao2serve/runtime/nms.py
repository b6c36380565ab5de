"""Greedy non-maximum suppression over all classes at once."""

from __future__ import annotations

import numpy as np

from .candidates import Candidates, Float64, Index, Mask
from .pairs import Sweep, sweep_order

__all__ = ["nms"]

# Pairs looked at for one class of one image; where more boxes meet, few of them survive, and they are gone through
# one after the other.
_KEPT = 1 << 20
_PIXEL = 1.0


def nms(boxes: Candidates, *, limit: Float64) -> Index:
    """Return the boxes that stay, lowest index first: in each group the best covered, and so on.

    A box goes if its IoU with one that stays is above `limit` (per box, the same for a class). Of boxes with the same
    coverage the earlier one comes first. Areas count one pixel more on each side, as tao_deploy's do.
    """
    order = sweep_order(boxes)
    boxes, limit = boxes.take(order), limit.take(order)

    sweep = Sweep.of(boxes, share=1.0 - limit, pixel=_PIXEL)
    rank = np.empty(len(boxes), dtype=np.int64)
    rank[np.lexsort((order, -boxes.coverage))] = np.arange(len(boxes))
    better, worse = [], []
    for piece in sweep.pieces():
        i, j = piece.pairs(sweep.aligned(piece))
        too_near = (sweep.overlaps((i, j)) > limit.take(i)).nonzero()[0]
        i, j = i.take(too_near), j.take(too_near)
        ahead = rank.take(i) < rank.take(j)
        better.append(np.where(ahead, i, j).astype(np.int32))
        worse.append(np.where(ahead, j, i).astype(np.int32))
    if not better:
        return np.sort(order)
    stays = _survivors(len(boxes), np.concatenate(better), np.concatenate(worse))
    return np.sort(order[stays])


def _survivors(count: int, better: Index, worse: Index) -> Mask:
    """Say which boxes stay, given all pairs that cannot both.

    Round by round: who meets no better one that is still undecided stays, and who meets one of these goes.
    """
    stays = np.ones(count, dtype=np.bool_)
    while len(better):
        beaten = np.zeros(count, dtype=np.bool_)
        beaten[worse] = True
        decided = ~beaten.take(better)
        stays[worse[decided]] = False
        open_pairs = np.flatnonzero(~decided & stays.take(better) & stays.take(worse))
        better, worse = better.take(open_pairs), worse.take(open_pairs)
    return stays
