"""Placing buffers in one block of memory by the time they are in use."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Buffer", "place_buffers"]

_ALIGNMENT = 16
"""Offsets are multiples of this many elements: 64 bytes of float32, a cache line."""

_MOST_COMPARED = 2_000
"""Buffers that are compared each with each, which takes a few seconds for some thousands."""


@dataclass(frozen=True)
class Buffer:
    """A buffer in use from step ``first`` to step ``last``, both included; size in elements."""

    size: int
    first: int
    last: int


def place_buffers(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Places buffers so that no two in use at the same time overlap.

    Greedy by size (Pisarchyk & Lee, *Efficient Memory Management for Deep Neural Net Inference*,
    2020, section 5.2): the largest first, each into the smallest gap that it fits in between those
    placed before which are in use at the same time, else behind them.

    Returns:
        The offset of each buffer, a multiple of 16 elements, and the size of the block.
    """
    if len(buffers) > _MOST_COMPARED:
        return _place_in_order(buffers)
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, i)):
        buffer = buffers[i]
        others = sorted(
            (offsets[j], offsets[j] + buffers[j].size)
            for j in placed
            if buffers[j].first <= buffer.last and buffer.first <= buffers[j].last
        )
        best: tuple[int, int] | None = None  # size of the gap, its offset
        end = 0
        for start, stop in others:
            gap = start - end
            if gap >= buffer.size and (best is None or gap < best[0]):
                best = (gap, end)
            end = max(end, -(-stop // _ALIGNMENT) * _ALIGNMENT)
        offsets[i] = end if best is None else best[1]
        placed.append(i)
    size = max((offsets[i] + buffers[i].size for i in placed), default=0)
    return offsets, size


def _place_in_order(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Places buffers in the order of their first use, each into the smallest free gap that it fits.

    What is no longer in use becomes a gap, one with those beside it.
    """
    offsets = [0] * len(buffers)
    gaps = _Gaps()
    in_use: list[tuple[int, int, int]] = []  # last step, offset, size
    for i in sorted(range(len(buffers)), key=lambda i: (buffers[i].first, i)):
        buffer = buffers[i]
        while in_use and in_use[0][0] < buffer.first:
            _, offset, size = heapq.heappop(in_use)
            gaps.give(offset, size)
        size = -(-buffer.size // _ALIGNMENT) * _ALIGNMENT
        offsets[i] = gaps.take(size)
        heapq.heappush(in_use, (buffer.last, offsets[i], size))
    return offsets, gaps.end


class _Gaps:
    """The gaps between buffers in use.

    Attributes:
        end: where the block ends, so far.
    """

    def __init__(self) -> None:
        self.end = 0
        self._by_size: list[tuple[int, int]] = []  # size, offset
        self._starts: dict[int, int] = {}  # the end of each gap, by its start
        self._ends: dict[int, int] = {}

    def take(self, size: int) -> int:
        """The offset of the smallest gap of at least a size, which is filled; else of a new one."""
        found = bisect_left(self._by_size, (size, 0))
        if found == len(self._by_size):
            start = self._ends.get(self.end, self.end)  # what is free at the end grows
            if start < self.end:
                self._remove(start, self.end)
            self.end = start + size
            return start
        gap, offset = self._by_size[found]
        self._remove(offset, offset + gap)
        if gap > size:
            self._add(offset + size, offset + gap)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Makes a gap of what was taken."""
        start, end = offset, offset + size
        if size == 0:
            return
        if start in self._ends:
            before = self._ends[start]
            self._remove(before, start)
            start = before
        if end in self._starts:
            behind = self._starts[end]
            self._remove(end, behind)
            end = behind
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        insort(self._by_size, (end - start, start))
        self._starts[start], self._ends[end] = end, start

    def _remove(self, start: int, end: int) -> None:
        del self._by_size[bisect_left(self._by_size, (end - start, start))]
        del self._starts[start], self._ends[end]
