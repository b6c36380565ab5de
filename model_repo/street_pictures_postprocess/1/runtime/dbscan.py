"""DBSCAN over boxes with the distance 1 - IoU, weighted by coverage: as tao_deploy does it with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .candidates import Candidates, Float64, Index, Mask
from .pairs import Pairs, Sweep, sweep_order

__all__ = ["UNCLUSTERED", "dbscan"]

UNCLUSTERED = -1
# Added to the IoU's denominator, and to eps: a distance equal to it is within.
_SMOOTHING = 0.01
_EPS_SLACK = 1e-12
# With so many boxes behind it in the sweep each one is compared first.
_NEAREST = 8
# Among more pairs those that are near are found anew for each use, so that memory does not grow with them.
_KEPT = 1 << 21


def dbscan(boxes: Candidates, *, eps: Float64, needed: Float64) -> Index:
    """Label each box with the index of its cluster's first core box, or UNCLUSTERED.

    A box is core if the coverage of all boxes within `eps` (per box, the same for a class) adds up to `needed`. It
    counts itself only if its own distance is within eps, which that of tiny and inverted boxes is not. A box that
    is near a core box, but is none, joins the cluster of the lowest number.

    In a crowd a few comparisons a box say that nearly all are core boxes of one cluster, and the many others between
    these are then left out: they could only add coverage where there is enough.
    """
    order = sweep_order(boxes)
    boxes, eps, needed = boxes.take(order), eps.take(order) + _EPS_SLACK, needed.take(order)
    sweep = Sweep.of(boxes, share=eps, smoothing=_SMOOTHING)
    nearest = [_within(sweep, eps, piece.pairs()) for piece in sweep.pieces(nearest=_NEAREST)]
    weight = _own_weight(boxes, eps)
    _add_weight(weight, boxes.coverage, nearest)
    core = weight >= needed
    root = _joined(np.arange(len(boxes)), core, nearest)
    settled = _settled(boxes, core, root)
    rest = _rest(sweep, eps, settled)
    _add_weight(weight, boxes.coverage, rest)
    core = weight >= needed
    unsettled = [pairs for pairs in (_chosen(pairs, _differ(settled, pairs)) for pairs in nearest) if len(pairs[0])]
    root = _joined(root, core, chain(unsettled, rest))
    label = _numbered(root, core, order)
    if not core.all():
        _add_border(label, core, chain(unsettled, rest))
    found = np.empty_like(label)
    found[order] = np.where(label == len(boxes), UNCLUSTERED, label)
    return found


@dataclass(frozen=True, slots=True)
class _FoundAnew:
    """Pairs that are looked for each time they are gone through."""

    find: Callable[[], Iterator[Pairs]]

    def __iter__(self) -> Iterator[Pairs]:
        return self.find()


def _rest(sweep: Sweep, eps: Float64, settled: Index) -> Iterable[Pairs]:
    """Return the pairs within eps beyond the nearest boxes, but those that are settled."""

    open_ = _meets_others(settled, sweep.count)
    if not open_.any():
        return []

    def find() -> Iterator[Pairs]:
        for piece in sweep.pieces(beyond=_NEAREST, of_boxes=open_):
            possible = sweep.aligned(piece)
            possible &= settled.take(piece.j) != piece.spread(settled)
            if possible.any():
                yield _within(sweep, eps, piece.pairs(possible))

    return _FoundAnew(find) if sweep.total > _KEPT else list(find())


def _meets_others(settled: Index, count: Index) -> Mask:
    """Say which boxes may overlap, among the `count` that follow, one that is not settled with them."""
    changes = np.zeros(len(settled), dtype=np.int64)
    np.cumsum(settled[1:] != settled[:-1], out=changes[1:])
    meets: Mask = changes.take(np.arange(len(settled)) + count) != changes
    return meets


def _within(sweep: Sweep, eps: Float64, pairs: Pairs) -> Pairs:
    """Keep the pairs whose distance is at most eps."""
    distance = sweep.overlaps(pairs)
    np.subtract(1.0, distance, out=distance)
    return _chosen(pairs, distance <= eps.take(pairs[0]))


def _settled(boxes: Candidates, core: Mask, root: Index) -> Index:
    """Return a number a box, the same for boxes that are known to be core boxes of one cluster."""
    # More neighbours make no box less of a core box, unless coverage is below zero, which no sigmoid gives.
    if boxes.coverage.min(initial=0.0) < 0.0:
        return np.arange(len(boxes))
    return np.where(core, root, np.arange(-len(boxes), 0))


def _own_weight(boxes: Candidates, eps: Float64) -> Float64:
    """Return each box's coverage, or 0 if it is not within eps of itself."""
    left, top, right, bottom = boxes.sides
    width, height = right - left, bottom - top
    area = width * height
    shared = np.maximum(width, 0.0)
    shared *= np.maximum(height, 0.0)
    distance = 1.0 - shared / (area + area - shared + _SMOOTHING)
    return np.where(distance <= eps, boxes.coverage, 0.0)


def _add_weight(weight: Float64, coverage: Float64, near: Iterable[Pairs]) -> None:
    """Add to each box the coverage of the boxes near it."""
    for i, j in near:
        weight += np.bincount(i, weights=coverage.take(j), minlength=len(weight))
        weight += np.bincount(j, weights=coverage.take(i), minlength=len(weight))


def _joined(root: Index, core: Mask, near: Iterable[Pairs]) -> Index:
    """Return the roots with both boxes of each pair of core boxes in one tree.

    A root is the smallest index of its tree, and every box points at its tree's root.
    """
    for pairs in near:
        both = core.take(pairs[0])
        both &= core.take(pairs[1])
        links = _chosen(pairs, both)
        while len((links := _chosen(links, _differ(root, links)))[0]):
            one, other = root.take(links[0]), root.take(links[1])
            np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
            root = _flattened(root)
    return root


def _flattened(root: Index) -> Index:
    """Let every box point at the top of its tree: each round halves the longest way."""
    while True:
        root = root.take(root)
        above = root.take(root)
        if (above == root).all():
            return root
        root = above


def _numbered(root: Index, core: Mask, order: Index) -> Index:
    """Return each core box's cluster as its first core box in the order of the grid; the number of boxes for others."""
    none = len(root)
    first = np.full(none, none)
    np.minimum.at(first, root[core], order[core])
    return np.where(core, first.take(root), none)


def _add_border(label: Index, core: Mask, near: Iterable[Pairs]) -> None:
    """Give boxes that are near core boxes, but are none, the lowest number among these."""
    for pairs in near:
        i, j = _chosen(pairs, _differ(core, pairs))
        i_is_core = core.take(i)
        np.minimum.at(label, np.where(i_is_core, j, i), label.take(np.where(i_is_core, i, j)))


def _differ(values: Index | Mask, pairs: Pairs) -> Mask:
    mask: Mask = values.take(pairs[0]) != values.take(pairs[1])
    return mask


def _chosen(pairs: Pairs, mask: Mask) -> Pairs:
    at = mask.nonzero()[0]
    return pairs[0].take(at), pairs[1].take(at)
