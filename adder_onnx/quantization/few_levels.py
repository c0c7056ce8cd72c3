"""Few of a grid's integers, chosen for the values that become them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.ops.schema import MOST_LEVELS
from adder_onnx.quantization.ranges import Histogram, Quantization

__all__ = ["check_levels", "choose_levels", "enter", "entry_of", "leaving_entry", "with_levels"]

_Floats = NDArray[np.float64]
_Counts = NDArray[np.int64]

_ENTRY_INTEGERS = 256
"""What QuantizeLinear has, before a table makes levels of them."""

_CANDIDATES = 128


def check_levels(levels: int, bits: int) -> None:
    """Looks at how many levels are asked for.

    Raises:
        InputError: a node does not take so many, or so many bits do not have them.
    """
    if not 2 <= levels <= MOST_LEVELS:
        raise InputError(f"levels is {levels}; expected 2 to {MOST_LEVELS}")
    if levels > 2**bits:
        raise InputError(
            f"levels is {levels}, of which {bits} bits have {2**bits}: ask for fewer, or for more "
            "bits"
        )


def with_levels(
    q: Quantization,
    count: int,
    values: NDArray[np.floating],
    weights: NDArray[np.integer] | None = None,
) -> Quantization:
    """The quantization with so many levels, those with the least squared error of the values.

    It is found exactly, by dynamic programming over the grid, as for scalar quantizers in general
    (Bruce, *Optimum Quantization*, MIT 1965). The error between two neighbouring levels depends on
    these two alone. The zero point is always a level: padding has it.

    Args:
        q: a grid, without levels.
        count: how many, 2 to the number of the grid's integers.
        values: of any shape.
        weights: of the same shape, how often there is each value; None for once.
    """
    between, below, above = _errors(q, values, weights)
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


def choose_levels(histogram: Histogram, bits: int, count: int) -> Quantization:
    """The grid, of those that cover a part of the whole range, and levels with the least error.

    Args:
        histogram: of a tensor's values.
        bits: of the grid.
        count: as for `with_levels`.
    """
    counts = histogram.counts.sum(axis=0)
    used = counts > 0
    values, weights = histogram.centers[used], counts[used]
    low, high = min(histogram.smallest, 0.0), max(histogram.largest, 0.0)

    def error(q: Quantization) -> float:
        return float(weights @ (q.dequantize(q.quantize(values)) - values) ** 2)

    grids = (
        Quantization.covering(low * share, high * share, bits)
        for share in np.linspace(1, 1 / _CANDIDATES, _CANDIDATES)
    )
    return min((with_levels(q, count, values, weights) for q in grids), key=error)


def _errors(
    q: Quantization, values: NDArray[np.floating], weights: NDArray[np.integer] | None
) -> tuple[_Floats, _Floats, _Floats]:
    """Squared errors of the values, in steps.

    Returns:
        (n, n), between a level and the next one, each value going to the nearer, infinite where the
        next is not above; (n,), below the first one; and (n,), above the last one.
    """
    integers = np.arange(2**q.bits, dtype=np.float64)
    places = values.reshape(-1).astype(np.float64) / float(q.scale) + q.zero_point
    order = np.argsort(places)
    places = places[order]
    own_weights = np.ones(len(places)) if weights is None else weights.reshape(-1)[order]
    numbers, sums, squares = (
        np.concatenate([[0.0], np.cumsum(own_weights * places**power)]) for power in range(3)
    )
    # How many values are at most k / 2.
    counts = np.searchsorted(places, np.arange(2 * len(integers) - 1) / 2, side="right")

    def error(level: _Floats, first: _Counts, end: _Counts) -> _Floats:
        total = squares[end] - squares[first] - 2 * level * (sums[end] - sums[first])
        found: _Floats = np.maximum(total + level**2 * (numbers[end] - numbers[first]), 0)
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
    steps = (_ENTRY_INTEGERS - 1) // max(q.greatest - q.least, 1)
    if not np.float32(float(q.scale) / steps) > 0:  # below the smallest float32
        steps = 1
    zero_point = (q.zero_point - q.least) * steps
    fine = Quantization(np.float32(float(q.scale) / steps), zero_point, 8)
    levels = np.array(q.levels, np.int64)
    borders = (levels[1:] + levels[:-1] - 2 * q.zero_point) * steps
    places = 2 * (np.arange(_ENTRY_INTEGERS) - zero_point)
    return fine, levels[np.searchsorted(borders, places, side="left")].astype(np.uint8)


def enter(q: Quantization, values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The integers of floats as they enter a chain: by `entry_of` where there are levels."""
    if not q.levels:
        return q.quantize(values)
    fine, table = entry_of(q)
    return table[fine.quantize(values)]


def leaving_entry(
    fine: Quantization, table: NDArray[np.uint8], scale: float, zero_point: int
) -> Quantization | None:
    """The quantization whose entry, as `entry_of` makes it, this is; None where it is none.

    Args:
        fine: of 8 bits.
        table: (256,).
        scale: of what the table gives.
        zero_point: likewise.
    """
    levels = tuple(int(level) for level in np.unique(table))
    if not 2 <= len(levels) <= MOST_LEVELS or zero_point not in levels:
        return None
    bits = max(levels[-1].bit_length(), 2)
    found = Quantization(np.float32(scale), zero_point, bits, levels)
    own, own_table = entry_of(found)
    return found if own == fine and np.array_equal(own_table, table) else None
