"""Times counted in bins of one width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["FEWEST_BINS", "MOST_BINS", "Histogram"]

FEWEST_BINS = 10
MOST_BINS = 40
_CORE = 99.5
"""Percent of the values that bins are made for."""


@dataclass(frozen=True)
class Histogram:
    """How often values lie where.

    1. The bins have one width, and their edges go from the least value to that which 99.5 of 100 do
       not exceed, which is one of the values.
    2. Their width is that of Freedman and Diaconis (*On the histogram as a density estimator*,
       1981), 2 · IQR / ∛n, but such that there are 10 to 40 of them.
    3. A value on an edge belongs to the bin above it, and that on the last edge to the last bin.
    4. Values above the last edge are beyond: a few slow runs would make all others one bar.

    Attributes:
        edges: of the bins, one more than there are of them.
        counts: of the values in each.
        beyond: how many are above the last edge.
        greatest: of all values.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    beyond: int
    greatest: float

    @classmethod
    def of(cls, values: ArrayLike) -> Histogram:
        """That of values above zero, of which there is at least one."""
        array = np.asarray(values, np.float64)
        low, high = float(array.min()), float(np.percentile(array, _CORE, method="higher"))
        core = array[array <= high]
        quarter, three_quarters = np.percentile(array, (25, 75))
        width = 2 * float(three_quarters - quarter) / np.cbrt(len(array))
        bins = (high - low) / width if width > 0 else MOST_BINS
        number = int(np.clip(np.ceil(bins), FEWEST_BINS, MOST_BINS))
        # Where all values are equal, bins still have a width, and the first one has them all.
        last = high if high > low * (1 + 1e-9) else 2 * low
        counts, edges = np.histogram(core, number, (low, last))
        return cls(
            tuple(edges.tolist()),
            tuple(counts.tolist()),
            len(array) - len(core),
            float(array.max()),
        )
