"""A confusion as an SVG file, which no script and no library draws.

1. A row is a class that images have as their label, a column what the model takes them for. Both
   are the same classes in the same order, so that right answers are the diagonal; answers that are
   no label of any image are counted in one more column.
2. A cell's colour says which share of the row's images it has; right and wrong differ in hue. The
   strength is the square root of the share, since mistakes are few beside what is right.
3. Up to 30 classes, cells have numbers; up to 100, axes have names and rows their accuracy.
   Beyond 30, the pairs that are confused most often stand beside the matrix.
4. Beyond 1000, a cell has several classes, next to each other by their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from adder_onnx.evaluation.confusion import Confusion
from adder_onnx.evaluation.shown_names import ClassNames, shorten
from adder_onnx.evaluation.svg import CHARACTER, element, text

__all__ = ["MOST_NAMED", "MOST_NUMBERED", "draw_confusion"]

MOST_NUMBERED = 30
"""How many classes a matrix may have whose cells say their numbers."""

MOST_NAMED = 100
"""How many it may have whose axes say names."""

_MOST_CELLS = 1000
_MARGIN = 24
_GAP = 8
_HEAD = 76
"""Height of the title."""

_NARROWEST = 520
_NAME_CELLS = 24
_NAME_SIZE = 12
_SMALL_SIZE = 10
_PAIR_CELLS = 22
_PAIR_HEIGHT = 17
_MOST_PAIRS = 48
_TICKS_APART = 24
_OTHERS = "other classes"
_LEGEND = (0.01, 0.1, 0.5, 1.0)
_STRENGTHS_UNDER_TEXT = (0.07, 0.6)
"""The weakest and the strongest: with more, numbers could not be read in light and dark alike."""

_STRENGTHS = (0.12, 1.0)
_STRENGTHS_OF_DOTS = (0.4, 1.0)
"""What is a pixel wide is not seen if it is weak."""

_STYLE = """
svg { --paper: #ffffff; --raised: #f1f3f6; --ink: #1b1f27; --faint: #5b6472;
  --right: #2458c6; --wrong: #d1481b; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #14171c; --raised: #20252d; --ink: #f4f6f9; --faint: #a0a9b8;
    --right: #7fa8ff; --wrong: #ff8f5c; }
}
.paper { fill: var(--paper); } .raised { fill: var(--raised); }
.right { fill: var(--right); } .wrong { fill: var(--wrong); }
text { fill: var(--ink); font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
  unicode-bidi: isolate; white-space: pre; }
.faint { fill: var(--faint); } .title { font-weight: bold; }
"""


def draw_confusion(
    confusion: Confusion, names: Sequence[str] | None, title: str, subtitle: str
) -> str:
    """The SVG, to be written as UTF-8.

    Args:
        confusion: of at least one image.
        names: of all classes, if they have any.
        title: what stands above, with the accuracy.
        subtitle: what stands below that; like names, it may be any text.
    """
    matrix = _Matrix(confusion)
    called = ClassNames(names)
    place = _place(matrix, called)
    parts = [
        element("title", escape(f"Confusion matrix: {title}")),
        element("style", _STYLE),
        element("rect", class_="paper", width=place.width, height=place.height),
        *_head(place, title, subtitle),
        *_axes(matrix, place, called),
        *(_cells(matrix, place, called) if place.named else _dots(matrix, place)),
        *(_pairs(confusion, place, called) if place.pairs else ()),
        *_legend(place),
    ]
    root = element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {place.width} {place.height}",
        width=place.width,
        height=place.height,
        role="img",
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{root}\n'


class _Matrix:
    """A confusion by places: rows, and columns of which the last may be that of other answers.

    Attributes:
        classes: the number of the first class of each row.
        block: how many classes a row has; at the end, fewer.
        others: whether there is a column of other answers.
        cells: (N, 3) row, column, images; of those that have any.
        totals: images of each row.
    """

    def __init__(self, confusion: Confusion) -> None:
        counts = confusion.counts
        labels = np.unique(counts[:, 0])
        self.block = math.ceil(len(labels) / _MOST_CELLS)
        self.classes: list[int] = labels[:: self.block].tolist()
        rows = np.searchsorted(labels, counts[:, 0]) // self.block
        is_label = np.isin(counts[:, 1], labels)
        columns = np.searchsorted(labels, counts[:, 1]) // self.block
        columns[~is_label] = len(self.classes)
        self.others = bool((~is_label).any())
        sums: dict[tuple[int, int], int] = {}
        for row, column, count in zip(
            rows.tolist(), columns.tolist(), counts[:, 2].tolist(), strict=True
        ):
            sums[row, column] = sums.get((row, column), 0) + count
        self.cells = np.array([(*key, count) for key, count in sorted(sums.items())], np.int64)
        self.totals: NDArray[np.int64] = np.bincount(self.cells[:, 0], self.cells[:, 2]).astype(
            np.int64
        )

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class _Place:
    """Where things stand, in pixels.

    Attributes:
        rows: how many rows the matrix has.
        others: whether there is a column of other answers.
        cell: side of a cell.
        left: of the matrix.
        top: of the matrix.
        size: of names' font.
        pairs: whether there is a list of pairs.
    """

    rows: int
    others: bool
    cell: float
    left: float
    top: float
    size: float
    pairs: bool

    @property
    def named(self) -> bool:
        """Whether axes have names."""
        return self.rows <= MOST_NAMED

    @property
    def numbered(self) -> bool:
        """Whether cells have numbers."""
        return self.rows <= MOST_NUMBERED

    @property
    def strengths(self) -> tuple[float, float]:
        """How opaque cells are, of no images and of all of a row."""
        if self.numbered:
            return _STRENGTHS_UNDER_TEXT
        return _STRENGTHS if self.named else _STRENGTHS_OF_DOTS

    def strength(self, share: float) -> float:
        """How opaque a cell is."""
        weakest, strongest = self.strengths
        return weakest + (strongest - weakest) * math.sqrt(share)

    @property
    def side(self) -> float:
        """Of the matrix without other answers."""
        return self.rows * self.cell

    @property
    def column_of_others(self) -> float:
        """How wide that is."""
        return max(self.cell, 6) if self.others else 0

    def x(self, column: int) -> float:
        """Left end of a column."""
        return self.left + column * self.cell + (_GAP if column == self.rows else 0)

    def y(self, row: int) -> float:
        """Upper end of a row."""
        return self.top + row * self.cell

    @property
    def right(self) -> float:
        """Of the matrix, all columns included."""
        return self.left + self.side + (_GAP + self.column_of_others if self.others else 0)

    @property
    def pairs_left(self) -> float:
        """Of the list of pairs."""
        shares = _width(6, self.size) + _GAP if self.named else 0
        return self.right + shares + 2 * _MARGIN

    @property
    def below(self) -> float:
        """Where the legend begins."""
        lines = _pairs_that_fit(self) if self.pairs else 0
        return max(self.top + self.side, self.top + lines * _PAIR_HEIGHT) + _MARGIN

    @cached_property
    def width(self) -> int:
        """Of the picture."""
        if self.pairs:
            end = self.pairs_left + _width(12 + 2 * _PAIR_CELLS, _NAME_SIZE)
        else:
            end = self.right + _width(6, self.size) + _GAP
        return math.ceil(max(end + _MARGIN, _NARROWEST))

    @cached_property
    def height(self) -> int:
        """Of the picture."""
        return math.ceil(self.below + 84)


def _width(characters: int, size: float) -> float:
    return characters * CHARACTER * size


def _place(matrix: _Matrix, called: ClassNames) -> _Place:
    rows = len(matrix)
    size: float = _NAME_SIZE if rows <= MOST_NUMBERED else _SMALL_SIZE
    if rows <= MOST_NUMBERED:
        digits = len(str(matrix.cells[:, 2].max()))
        cell: float = max(64 if rows <= 5 else 44 if rows <= 12 else 30, _width(digits, size) + 8)
    else:
        cell = 14 if rows <= MOST_NAMED else max(1, _MOST_CELLS // rows)
    names = [_row_name(matrix, called, i) for i in range(rows)] if rows <= MOST_NAMED else ["0" * 6]
    room = max(map(cell_len, names))
    above = max(room, len(_OTHERS)) if matrix.others else room
    axis = _NAME_SIZE * 1.4 + _GAP
    return _Place(
        rows=rows,
        others=matrix.others,
        cell=cell,
        left=_MARGIN + axis + _width(room, size) + _GAP,
        top=_HEAD + axis + _width(above, size) + _GAP,
        size=size,
        pairs=rows > MOST_NUMBERED,
    )


def _row_name(matrix: _Matrix, called: ClassNames, row: int) -> str:
    return shorten(called[matrix.classes[row]], _NAME_CELLS)


def _head(place: _Place, title: str, subtitle: str) -> list[str]:
    room = place.width - 2 * _MARGIN
    fits = [int(room / _width(1, size)) for size in (17, _NAME_SIZE)]
    return [
        text(shorten(title, fits[0]), _MARGIN, 34, width=room, size=17, class_="title"),
        text(shorten(subtitle, fits[1]), _MARGIN, 58, width=room, size=_NAME_SIZE, class_="faint"),
    ]


def _axes(matrix: _Matrix, place: _Place, called: ClassNames) -> list[str]:
    """The axes' own names, then those of classes or their numbers here and there."""
    middle = _MARGIN + _NAME_SIZE * 0.7
    parts = [
        text(
            "the model's answer" if place.named else "the model's answer, by number of class",
            place.left,
            _HEAD + _NAME_SIZE * 0.7,
            width=_width(40, _NAME_SIZE),
            size=_NAME_SIZE,
            class_="faint",
        ),
        text(
            "true class",
            middle,
            place.top + _width(10, _NAME_SIZE),
            width=_width(10, _NAME_SIZE),
            size=_NAME_SIZE,
            upwards=True,
            class_="faint",
        ),
    ]
    step = 1 if place.named else _step(place)
    for i in range(0, len(matrix), step):
        name = _row_name(matrix, called, i) if place.named else str(matrix.classes[i])
        parts += _tick(place, i, name)
    if matrix.others:
        parts.append(_column_name(place, len(matrix), _OTHERS))
    return parts


def _step(place: _Place) -> int:
    """Every how many rows one has its number said, a round number."""
    least = _TICKS_APART / place.cell
    return next(s for power in range(4) for s in (10**power, 5 * 10**power) if s >= least)


def _tick(place: _Place, i: int, name: str) -> list[str]:
    room = place.left - _MARGIN - _NAME_SIZE * 1.4 - _GAP
    row = text(
        name,
        place.left - _GAP,
        place.y(i) + place.cell / 2,
        width=room,
        size=place.size,
        anchor="end",
    )
    return [row, _column_name(place, i, name)]


def _column_name(place: _Place, column: int, name: str) -> str:
    wide = place.cell if column < place.rows else place.column_of_others
    return text(
        name,
        place.x(column) + wide / 2,
        place.top - _GAP,
        width=place.top - _GAP - _HEAD - _NAME_SIZE * 1.4,
        size=place.size,
        upwards=True,
    )


def _background(place: _Place) -> list[str]:
    boxes = [(place.left, place.side)]
    if place.others:
        boxes.append((place.x(place.rows), place.column_of_others))
    return [
        element("rect", class_="raised", x=float(x), y=float(place.top), width=w, height=place.side)
        for x, w in boxes
    ]


def _cells(matrix: _Matrix, place: _Place, called: ClassNames) -> list[str]:
    """Cells one by one; each tells, where a mouse rests on it, what it is."""
    parts = _background(place)
    for row, column, count in matrix.cells.tolist():
        share = count / matrix.totals[row]
        is_other = column == len(matrix)
        wide = place.column_of_others if is_other else place.cell
        true = shorten(called[matrix.classes[row]], 2 * _NAME_CELLS)
        answer = _OTHERS if is_other else shorten(called[matrix.classes[column]], 2 * _NAME_CELLS)
        said = f"{true} taken for {answer}" if row != column else f"{true}, right"
        parts.append(
            element(
                "rect",
                element(
                    "title",
                    escape(f"{said}: {count} of {matrix.totals[row]} ({100 * share:.2f} %)"),
                ),
                class_="right" if row == column else "wrong",
                x=place.x(column) + 0.5,
                y=place.y(row) + 0.5,
                width=wide - 1.0,
                height=place.cell - 1.0,
                fill_opacity=place.strength(share),
            )
        )
        if place.numbered:
            parts.append(
                text(
                    str(count),
                    place.x(column) + wide / 2,
                    place.y(row) + place.cell / 2,
                    width=wide,
                    size=place.size,
                    anchor="middle",
                    pointer_events="none",
                )
            )
    return parts + _accuracies(matrix, place)


def _accuracies(matrix: _Matrix, place: _Place) -> list[str]:
    """Of each row, to its right."""
    right = {int(row): int(n) for row, column, n in matrix.cells if row == column}
    return [
        text(
            f"{100 * right.get(row, 0) / total:.1f} %",
            place.right + _GAP + _width(7, place.size),
            place.y(row) + place.cell / 2,
            width=_width(7, place.size),
            size=place.size,
            anchor="end",
            class_="faint",
        )
        for row, total in enumerate(matrix.totals.tolist())
    ]


def _dots(matrix: _Matrix, place: _Place) -> list[str]:
    """Cells without names, those of one colour as one path: there may be many."""
    paths: dict[tuple[str, float], list[str]] = {}
    for row, column, count in matrix.cells.tolist():
        wide = place.column_of_others if column == len(matrix) else place.cell
        strength = round(place.strength(count / matrix.totals[row]), 1)
        kind = "right" if row == column else "wrong"
        dot = f"M{place.x(column):g} {place.y(row):g}h{wide:g}v{place.cell:g}h-{wide:g}z"
        paths.setdefault((kind, strength), []).append(dot)
    drawn = [
        element("path", class_=kind, fill_opacity=strength, d="".join(dots))
        for (kind, strength), dots in sorted(paths.items())
    ]
    return [*_background(place), element("g", *drawn, shape_rendering="crispEdges")]


def _pairs_that_fit(place: _Place) -> int:
    return min(_MOST_PAIRS, max(12, math.floor(place.side / _PAIR_HEIGHT) - 1))


def _pairs(confusion: Confusion, place: _Place, called: ClassNames) -> list[str]:
    """What is confused most often, as a list."""
    left, one = place.pairs_left, _width(1, _NAME_SIZE)
    parts = [
        text(
            "taken for another most often",
            left,
            place.top + _PAIR_HEIGHT / 2,
            width=one * 28,
            size=_NAME_SIZE,
            class_="faint",
        )
    ]
    for i, (true, answer, count) in enumerate(confusion.mistakes()[: _pairs_that_fit(place)], 1):
        y = place.top + (i + 0.5) * _PAIR_HEIGHT
        names = [shorten(_pair_name(place, called, n), _PAIR_CELLS) for n in (true, answer)]
        columns = (
            (str(count), left + 6 * one, 6, "end"),
            (names[0], left + 8 * one, _PAIR_CELLS, "start"),
            ("→", left + (8.7 + _PAIR_CELLS) * one, 2, "start"),
            (names[1], left + (11.5 + _PAIR_CELLS) * one, _PAIR_CELLS, "start"),
        )
        parts += [
            text(content, x, y, width=cells * one, size=_NAME_SIZE, anchor=anchor)
            for content, x, cells, anchor in columns
        ]
    return parts


def _pair_name(place: _Place, called: ClassNames, number: int) -> str:
    name = called[number]
    return name if place.named or name == str(number) else f"{number} {name}"


def _legend(place: _Place) -> list[str]:
    """Both colours in some strengths."""
    one = _width(1, _NAME_SIZE)
    y = place.below + 8
    parts = [
        text(
            "share of the images of a true class",
            _MARGIN,
            y,
            width=one * 36,
            size=_NAME_SIZE,
            class_="faint",
        )
    ]
    for kind in ("right", "wrong"):
        y += 22
        parts.append(text(kind, _MARGIN, y, width=6 * one, size=_NAME_SIZE))
        for i, share in enumerate(_LEGEND):
            x = _MARGIN + (7 + 11 * i) * one
            parts += [
                element(
                    "rect",
                    class_=kind,
                    x=x,
                    y=y - 7,
                    width=22,
                    height=14,
                    fill_opacity=place.strength(share),
                ),
                text(
                    f"{100 * share:.0f} %",
                    x + 28,
                    y,
                    width=6 * one,
                    size=_NAME_SIZE,
                    class_="faint",
                ),
            ]
    return parts
