"""Few of a grid's integers, chosen for the values that become them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adder_onnx.quantization.ranges import Quantization

__all__ = ["ENTRY_INTEGERS", "entry_of", "with_levels"]

_Floats = NDArray[np.float64]
_Counts = NDArray[np.int64]

ENTRY_INTEGERS = 256
"""What QuantizeLinear has, before a table makes levels of them."""


def with_levels(q: Quantization, count: int, values: NDArray[np.floating]) -> Quantization:
    """The quantization with so many levels, those with the least squared error of the values.

    It is found exactly, by dynamic programming over the grid, as for scalar quantizers in general
    (Bruce, *Optimum Quantization*, MIT 1965). The error between two neighbouring levels depends on
    these two alone. The zero point is always a level: padding has it.

    Args:
        q: a grid, without levels.
        count: how many, 2 to the number of the grid's integers.
        values: of any shape.
    """
    between, below, above = _errors(q, values)
    size, zero_point = len(below), q.zero_point
    integers = np.arange(size)
    between[np.ix_(integers < zero_point, integers > zero_point)] = np.inf
    least = np.where(integers <= zero_point, below, np.inf)
    before = []
    for _ in range(count - 1):
        totals = least[:, None] + between
        before.append(totals.argmin(axis=0))
        least = totals.min(axis=0)
    levels = [int(np.where(integers >= zero_point, least + above, np.inf).argmin())]
    for choice in reversed(before):
        levels.append(int(choice[levels[-1]]))
    return replace(q, levels=tuple(reversed(levels)))


def _errors(q: Quantization, values: NDArray[np.floating]) -> tuple[_Floats, _Floats, _Floats]:
    """Squared errors of the values, in steps.

    Returns:
        (n, n), between a level and the next one, each value going to the nearer, infinite where the
        next is not above; (n,), below the first one; and (n,), above the last one.
    """
    integers = np.arange(2**q.bits, dtype=np.float64)
    places = np.sort(values, axis=None).astype(np.float64) / float(q.scale) + q.zero_point
    sums = np.concatenate([[0], np.cumsum(places)])
    squares = np.concatenate([[0], np.cumsum(places**2)])
    # How many values are at most k / 2.
    counts = np.searchsorted(places, np.arange(2 * len(integers) - 1) / 2, side="right")

    def error(level: _Floats, first: _Counts, end: _Counts) -> _Floats:
        total = squares[end] - squares[first] - 2 * level * (sums[end] - sums[first])
        found: _Floats = np.maximum(total + level**2 * (end - first), 0)
        return found

    own, k = counts[::2], np.arange(len(integers))
    middle = counts[np.add.outer(k, k)]
    between = error(integers[:, None], own[:, None], middle) + error(integers, middle, own)
    between[np.greater_equal.outer(k, k)] = np.inf
    none, all_ = np.zeros_like(own), np.full_like(own, len(places))
    return between, error(integers, none, own), error(integers, own, all_)


def entry_of(q: Quantization) -> tuple[Quantization, NDArray[np.uint8]]:
    """What makes levels of floats in standard operators: QuantizeLinear, and a table behind it.

    The 256 integers of QuantizeLinear are as fine as they can be over the levels, so that a float
    becomes the nearest level, but for floats within half of these fine steps of a border.

    Args:
        q: with levels.

    Returns:
        The fine quantization, and (256,): the level of each of its integers.
    """
    steps = (ENTRY_INTEGERS - 1) // max(q.greatest - q.least, 1)
    zero_point = (q.zero_point - q.least) * steps
    fine = Quantization(np.float32(float(q.scale) / steps), zero_point, 8)
    levels = np.array(q.levels, np.int64)
    borders = (levels[1:] + levels[:-1] - 2 * q.zero_point) * steps
    places = 2 * (np.arange(ENTRY_INTEGERS) - zero_point)
    return fine, levels[np.searchsorted(borders, places, side="left")].astype(np.uint8)
