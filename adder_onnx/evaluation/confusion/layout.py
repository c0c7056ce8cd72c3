"""Where the parts of a confusion's picture stand, by the rules of `drawing`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len

from adder_onnx.evaluation.confusion.counts import Confusion
from adder_onnx.evaluation.confusion.svg import wide
from adder_onnx.evaluation.shown_names import ClassNames
from adder_onnx.text import shorten

__all__ = [
    "GAP",
    "HEAD",
    "MARGIN",
    "NAME_SIZE",
    "OTHERS",
    "PAIR_CELLS",
    "PAIR_HEIGHT",
    "Layout",
    "Matrix",
]

MARGIN = 24
GAP = 8
HEAD = 76
"""Height of the title."""

NAME_SIZE = 12
OTHERS = "other classes"
PAIR_CELLS = 22
"""How long a name in the list of pairs may be."""

PAIR_HEIGHT = 17

_MOST_NUMBERED = 30
_MOST_NAMED = 100
_MOST_ROWS = 1000
_NARROWEST = 520
_NAME_CELLS = 24
_SMALL_SIZE = 10
_MOST_PAIRS = 48
_FEWEST_PAIRS = 12
_LEGEND_HEIGHT = 84
_STRENGTHS_UNDER_TEXT = (0.07, 0.57)
"""The weakest and the strongest: with more, numbers could not be read in light and dark alike."""

_STRENGTHS = (0.12, 1.0)
_STRENGTHS_OF_DOTS = (0.4, 1.0)
"""What is a pixel wide is not seen if it is weak."""


class Matrix:
    """A confusion by places: rows, and columns of which the last may be that of other answers.

    Attributes:
        block: how many classes a row has; the last may have fewer.
        classes: the number of the first class of each row.
        others: whether there is a column of other answers.
        cells: row, column and images of the cells that have any, in ascending order.
        totals: images of each row.
    """

    def __init__(self, confusion: Confusion) -> None:
        counts = confusion.counts
        labels = np.unique(counts[:, 0])
        self.block = math.ceil(len(labels) / _MOST_ROWS)
        self.classes: list[int] = labels[:: self.block].tolist()
        is_label = np.isin(counts[:, 1], labels)
        self.others = not is_label.all()
        rows, columns = (np.searchsorted(labels, counts[:, i]) // self.block for i in range(2))
        columns[~is_label] = len(self.classes)
        sums = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)
        np.add.at(sums, (rows, columns), counts[:, 2])
        self.totals: list[int] = sums.sum(axis=1).tolist()
        places = np.argwhere(sums)
        found = np.column_stack((places, sums[places[:, 0], places[:, 1]]))
        self.cells: list[tuple[int, int, int]] = [(r, c, n) for r, c, n in found.tolist()]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def named(self) -> bool:
        """Whether rows are few enough for names."""
        return len(self) <= _MOST_NAMED

    @property
    def numbered(self) -> bool:
        """Whether they are few enough for numbers in cells."""
        return len(self) <= _MOST_NUMBERED

    def name(self, row: int, called: ClassNames) -> str:
        """What stands beside a row and above its column: a name, or the number of its class."""
        number = self.classes[row]
        return shorten(called[number], _NAME_CELLS) if self.named else str(number)


@dataclass(frozen=True)
class Layout:
    """Places and sizes in pixels.

    Attributes:
        cell: side of a cell.
        size: of names' font.
        left: of the matrix.
        top: of the matrix.
        side: of the matrix without other answers.
        others: width of the column of other answers, 0 where there is none.
        pairs: how many pairs are listed beside the matrix.
        strengths: how opaque cells are, of no images and of all of a row.
    """

    cell: float
    size: int
    left: float
    top: float
    side: float
    others: float
    pairs: int
    strengths: tuple[float, float]

    @classmethod
    def of(cls, matrix: Matrix, called: ClassNames) -> Layout:
        """That of a matrix whose classes are called so."""
        size = NAME_SIZE if matrix.numbered else _SMALL_SIZE
        cell = _cell(matrix, size)
        longest = max(cell_len(matrix.name(row, called)) for row in range(len(matrix)))
        above = max(longest, len(OTHERS)) if matrix.others else longest
        axis = 1.4 * NAME_SIZE + GAP
        fitting = int(len(matrix) * cell / PAIR_HEIGHT) - 1
        strengths = _STRENGTHS if matrix.named else _STRENGTHS_OF_DOTS
        return cls(
            cell=cell,
            size=size,
            left=MARGIN + axis + wide(longest, size) + GAP,
            top=HEAD + axis + wide(above, size) + GAP,
            side=len(matrix) * cell,
            others=max(cell, 6) if matrix.others else 0,
            pairs=0 if matrix.numbered else min(_MOST_PAIRS, max(_FEWEST_PAIRS, fitting)),
            strengths=_STRENGTHS_UNDER_TEXT if matrix.numbered else strengths,
        )

    def x(self, column: int) -> float:
        """Left end of a column."""
        x = self.left + column * self.cell
        return x if x < self.left + self.side else x + GAP

    def y(self, row: int) -> float:
        """Upper end of a row."""
        return self.top + row * self.cell

    def width_of(self, column: int) -> float:
        """Of a column."""
        return self.cell if column * self.cell < self.side else self.others

    def strength(self, share: float) -> float:
        """How opaque a cell is."""
        weakest, strongest = self.strengths
        return weakest + (strongest - weakest) * math.sqrt(share)

    @property
    def right(self) -> float:
        """End of the matrix with all its columns."""
        return self.left + self.side + (GAP + self.others if self.others else 0)

    @property
    def accuracies(self) -> float:
        """Right end of the accuracies of rows, beside these."""
        return self.right + GAP + wide(7, self.size)

    @property
    def pairs_left(self) -> float:
        """Left end of the list of pairs."""
        return self.accuracies + 2 * MARGIN

    @property
    def legend(self) -> float:
        """Where the legend begins, below all else."""
        return self.top + max(self.side, (self.pairs + 1) * PAIR_HEIGHT) + MARGIN

    @property
    def width(self) -> int:
        """Of the picture."""
        pairs = self.pairs_left + wide(12 + 2 * PAIR_CELLS, NAME_SIZE)
        return math.ceil(max((pairs if self.pairs else self.accuracies) + MARGIN, _NARROWEST))

    @property
    def height(self) -> int:
        """Of the picture."""
        return math.ceil(self.legend + _LEGEND_HEIGHT)


def _cell(matrix: Matrix, size: int) -> float:
    rows = len(matrix)
    if matrix.numbered:
        digits = max(len(str(count)) for _, _, count in matrix.cells)
        least = 64 if rows <= 5 else 44 if rows <= 12 else 30
        return max(least, wide(digits, size) + GAP)
    return 14 if matrix.named else max(1, _MOST_ROWS // rows)
