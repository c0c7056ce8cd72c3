"""The table by which the body of a QLinearAdderConv rounds, where nodes may have levels.

The output depends on the place of q = v / y_scale among all multiples of 1/2 alone, with the zero
point added: place 2k is the value k/2 itself, place 2k + 1 all between k/2 and (k + 1)/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.graph.inlined.matching import require
from adder_onnx.ops.schema import MOST_LEVELS

__all__ = ["LAST_PLACE", "Outputs", "read_table"]

LAST_PLACE = 4 * 255
"""That of the largest integer."""


@dataclass(frozen=True)
class Outputs:
    """What values an output takes.

    Attributes:
        bits: at most 2**bits - 1; 2 to 8.
        levels: these only; none for all.
    """

    bits: int
    levels: tuple[int, ...] = ()


def read_table(table: NDArray[Any], zero_point: int) -> Outputs:
    """What a table of outputs rounds to.

    Raises:
        DifferentError: it rounds to something else.
    """
    is_table = table.dtype == np.uint8 and table.shape == (LAST_PLACE + 1,)
    require(is_table, "outputs are not a table of bytes")
    values = np.arange(LAST_PLACE + 1) / 4
    whole = np.rint(values - zero_point) + zero_point
    for bits in range(2, 9):
        if np.array_equal(table, np.clip(whole, 0, 2**bits - 1)):
            return Outputs(bits)
    levels = np.unique(table).astype(np.int64)
    require(2 <= len(levels) <= MOST_LEVELS, "a table has other outputs than a few levels")
    borders = (levels[:-1] + levels[1:]) / 2
    nearest = levels[(values[:, None] > borders).sum(axis=1)]
    require(np.array_equal(table, nearest), "a table does not round to the nearest level")
    top = int(levels[-1])
    return Outputs(max(2, top.bit_length()), tuple(levels.tolist()))
