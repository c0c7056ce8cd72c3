"""Placing buffers in one block of memory by the time they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Buffer", "place_buffers"]

_ALIGNMENT = 16
"""Offsets are multiples of this many elements: 64 bytes of float32, a cache line."""


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
