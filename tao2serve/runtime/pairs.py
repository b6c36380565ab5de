"""Which boxes overlap, found without comparing every box with every other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates, Float64, Index, Mask
from .memory import keep_freed

__all__ = ["Pairs", "Piece", "Sweep", "sweep_order"]

Pairs: TypeAlias = tuple[Index, Index]
_Value = TypeVar("_Value", bound=np.generic)

keep_freed()  # to fault arrays in again and again costs as much as what is done in them

# Pairs looked at in one piece: enough that numpy's calls do not count, few enough for the processor's cache, and for
# memory not to grow with the pairs.
_PIECE = 1 << 14
# Pixels that a search reaches too far, more than rounding can take away.
_SLACK = 1e-3
# Edges are sorted as if none were farther from the origin, so that the group added to them costs no precision.
_FAR = float(1 << 20)


def sweep_order(boxes: Candidates) -> Index:
    """Return the order in which `Sweep` wants boxes: group by group, within a group by left edge."""
    return _sweep_key(boxes).argsort(kind="stable")


def _sweep_key(boxes: Candidates) -> Float64:
    key: Float64 = np.minimum(boxes.sides[0], _FAR)
    np.maximum(key, -_FAR, out=key)
    key += boxes.group * (8.0 * _FAR)
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Pairs (i[n], j[n]) of boxes, i < j, i never falling: box part.start + n is in `count[n]` of them as i."""

    part: slice
    count: Index
    i: Index
    j: Index

    @classmethod
    def of(cls, part: slice, count: Index, beyond: int) -> Piece:
        """Pair each box of `part` with `count` boxes, from the one `beyond` + 1 behind it on."""
        i: Index = np.arange(part.start, part.stop)
        start: Index = i - count.cumsum()
        start += count
        start += beyond + 1
        j = start.repeat(count)
        j += np.arange(len(j))
        return cls(part=part, count=count, i=i.repeat(count), j=j)

    def spread(self, values: NDArray[_Value]) -> NDArray[_Value]:
        """Return the values of the boxes i."""
        return values[self.part].repeat(self.count)

    def pairs(self, chosen: Mask | None = None) -> Pairs:
        """Return all pairs, or the chosen ones."""
        if chosen is None:
            return self.i, self.j
        at = chosen.nonzero()[0]
        return self.i.take(at), self.j.take(at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search for pairs of boxes that overlap: box i may overlap the `count[i]` boxes that follow it, and no more.

    Boxes that are apart cost nothing: of boxes i and j, with i further left, the overlap is at most that of their
    horizontal extents, which is at most 1 - (left_j - left_i) / width_i.
    """

    corners: Float64  # (N, 4): right, bottom, -left, -top, so that an intersection is one minimum
    area: Float64
    top: Float64
    height: Float64
    share: Float64
    count: Index
    total: int  # of `count`
    smoothing: float  # added to the union of two boxes
    pixel: float  # added to every side

    @classmethod
    def of(cls, boxes: Candidates, *, share: Float64, smoothing: float = 0.0, pixel: float = 0.0) -> Sweep:
        """Search boxes in `sweep_order` for pairs with an overlap of at least 1 - share[i].

        `share` is the same for all boxes of a group; from 1 on all pairs of the group are looked at.
        """
        left, top, right, bottom = boxes.sides
        width, height = right - left, bottom - top
        if pixel:
            width += pixel
            height += pixel
        key = _sweep_key(boxes)
        # No farther than any two edges are apart, so that the next group is out of reach.
        reach = np.minimum(_reach(width, share), 2.0 * _FAR + _SLACK)
        reach += key
        count = key.searchsorted(reach, side="right")
        count -= np.arange(1, len(key) + 1)
        np.maximum(count, 0, out=count)
        total = int(count.sum())
        corners = np.empty((len(key), 4))
        corners[:, :2] = boxes.sides[2:].T
        np.negative(boxes.sides[:2].T, out=corners[:, 2:])
        return cls(
            corners=corners,
            area=width * height,
            top=top,
            height=height,
            share=share,
            count=count,
            total=total,
            smoothing=smoothing,
            pixel=pixel,
        )

    def pieces(self, *, nearest: int | None = None, beyond: int = 0, of_boxes: Mask | None = None) -> Iterator[Piece]:
        """Yield the pairs that may overlap, in pieces, each pair once.

        Only the `nearest` boxes that follow each are taken, or only those beyond so many; only `of_boxes` as i.
        """
        count = self.count if nearest is None else np.minimum(self.count, nearest)
        if beyond:
            count = np.maximum(count - beyond, 0)
        if of_boxes is not None:
            count = count * of_boxes
        end = count.cumsum()
        first = 0
        while first < len(end):
            before = int(end[first - 1]) if first else 0
            last = max(int(end.searchsorted(before + _PIECE, side="right")), first + 1)
            if end[last - 1] > before:
                yield Piece.of(slice(first, last), count[first:last], beyond)
            first = last

    def aligned(self, piece: Piece) -> Mask:
        """Say which pairs are near enough vertically: cheaper than their overlap, where most are not."""
        apart = self.top.take(piece.j)
        apart -= piece.spread(self.top)
        np.abs(apart, out=apart)
        # Either of the two may be the upper one. If it is the other, it is at most 1 / (1 - share) times as high.
        height = self.height[piece.part] / np.maximum(1.0 - self.share[piece.part], 1e-9)
        drop = _reach(height, self.share[piece.part])
        near: Mask = apart <= drop.repeat(piece.count)
        return near

    def overlaps(self, pairs: Pairs) -> Float64:
        """Return the intersection over union of each pair.

        The operations are those of `candidates.overlap` in the same order, so the bits are the same.
        """
        i, j = pairs
        meet = self.corners.take(i, axis=0)
        np.minimum(meet, self.corners.take(j, axis=0), out=meet)
        shared: Float64 = meet[:, 0] + meet[:, 2]
        height = meet[:, 1] + meet[:, 3]
        if self.pixel:
            shared += self.pixel
            height += self.pixel
        np.maximum(shared, 0.0, out=shared)
        np.maximum(height, 0.0, out=height)
        shared *= height
        union = self.area.take(i)
        union += self.area.take(j)
        union -= shared
        if self.smoothing:
            union += self.smoothing
        shared /= union
        return shared


def _reach(extent: Float64, share: Float64) -> Float64:
    """How far apart the lower edges of two intervals may be, if the lower one's length is `extent`."""
    reach = extent * share
    reach += _SLACK
    reach[share >= 1.0] = np.inf
    return reach
