"""How far two series of arrays are apart, added up as they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Noise"]

_PIECE = 1 << 20
"""Elements that are compared at a time, in float64."""


class Noise:
    """The difference of values of B from those of A.

    Where both are infinite or undefined in the same way, nothing differs; elements that are not
    finite in one of them only, or in another way, are counted, and are in no sum.

    Attributes:
        is_identical: whether all elements are equal so far.
        largest: the largest absolute difference.
        largest_value: the largest absolute value in A.
        not_finite: how many elements differ that are not finite.
        elements: how many were compared.
    """

    def __init__(self) -> None:
        self.is_identical = True
        self.largest = self.largest_value = 0.0
        self.not_finite = self.elements = 0
        self._signal = self._noise = 0.0

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Takes two arrays of one size."""
        ours, theirs = a.reshape(-1), b.reshape(-1)
        for start in range(0, ours.size, _PIECE):
            part = slice(start, start + _PIECE)
            self._add(np.asarray(ours[part], np.float64), np.asarray(theirs[part], np.float64))

    def _add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        self.elements += a.size
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            others = a[~finite], b[~finite]
            same = (others[0] == others[1]) | (np.isnan(others[0]) & np.isnan(others[1]))
            self.not_finite += int(np.count_nonzero(~same))
            self.is_identical &= bool(same.all())
            a, b = a[finite], b[finite]
        if not a.size:
            return
        error = b - a
        largest = float(np.abs(error).max())
        self.is_identical &= largest == 0
        self.largest = max(self.largest, largest)
        self.largest_value = max(self.largest_value, float(np.abs(a).max()))
        with np.errstate(over="ignore"):
            self._signal += float(np.square(a).sum())
            self._noise += float(np.square(error).sum())

    @property
    def decibels(self) -> float:
        """The signal-to-noise ratio; infinite without noise, minus infinite without a signal."""
        if self._noise == 0:
            return math.inf
        if self._signal == 0 or math.isinf(self._noise):
            return -math.inf
        if math.isinf(self._signal):  # of values beyond the square root of the largest float64
            return math.nan
        return 10 * math.log10(self._signal / self._noise)

    @property
    def relative(self) -> float | None:
        """The largest difference by the largest value in A; None where that is zero."""
        return self.largest / self.largest_value if self.largest_value else None
