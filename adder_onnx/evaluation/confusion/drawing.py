"""A confusion as an SVG file, which no script and no library draws.

1. A row is a class that images have as their label, a column what the model takes them for. Both
   are the same classes in the same order, so that right answers are the diagonal; answers that are
   no label of any image are counted in one more column.
2. A cell's colour says which share of the row's images it has; right and wrong differ in hue. The
   strength grows with the square root of the share, since mistakes are few beside what is right.
3. Up to 30 classes, cells have numbers; up to 100, axes have names and rows their accuracy.
   Beyond 30, the pairs that are confused most often stand beside the matrix.
4. Beyond 1000, a cell has several classes whose numbers follow each other, and the diagonal what is
   confused among them, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from adder_onnx.evaluation.confusion.counts import Confusion
from adder_onnx.evaluation.confusion.layout import (
    GAP,
    HEAD,
    MARGIN,
    NAME_SIZE,
    OTHERS,
    PAIR_CELLS,
    PAIR_HEIGHT,
    Layout,
    Matrix,
)
from adder_onnx.evaluation.confusion.svg import element, text, wide
from adder_onnx.evaluation.shown_names import ClassNames
from adder_onnx.text import shorten

__all__ = ["draw_confusion"]

_TITLE_SIZE = 17
_TOLD_CELLS = 48
"""How long a name may be where a mouse rests."""

_LEGEND = (0.01, 0.1, 0.5, 1.0)
_TICKS_APART = 24
_STEPS = (1, 5, 10, 50)
"""Every how many rows one has its number said."""

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
        names: of all classes, if they have any; any text, as the next two.
        title: what stands above, with the accuracy.
        subtitle: what stands below that.
    """
    matrix, called = Matrix(confusion), ClassNames(names)
    layout = Layout.of(matrix, called)
    parts = [
        element("title", escape(shorten(f"Confusion matrix, {title}", 200))),
        element("style", _STYLE),
        element("rect", class_="paper", width=layout.width, height=layout.height),
        *_head(layout, title, subtitle),
        *_axes(matrix, layout),
        *_names(matrix, layout, called),
        *_background(layout),
        *(_cells(matrix, layout, called) if matrix.named else [_dots(matrix, layout)]),
        *(_pairs(confusion, matrix, layout, called) if layout.pairs else []),
        *_legend(layout),
    ]
    root = element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {layout.width} {layout.height}",
        width=layout.width,
        height=layout.height,
        role="img",
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{root}\n'


def _head(layout: Layout, title: str, subtitle: str) -> list[str]:
    room = layout.width - 2 * MARGIN
    lines = ((title, 34, _TITLE_SIZE, "title"), (subtitle, 58, NAME_SIZE, "faint"))
    return [
        text(
            shorten(line, int(room / wide(1, size))),
            MARGIN,
            y,
            width=room,
            size=size,
            class_=class_,
        )
        for line, y, size, class_ in lines
    ]


def _axes(matrix: Matrix, layout: Layout) -> list[str]:
    answer = "the model's answer"
    if not matrix.named:
        answer += ", by number of class"
    if matrix.block > 1:
        answer += f", {matrix.block} to a cell"
    half = 0.7 * NAME_SIZE
    return [
        _faint(answer, layout.left, HEAD + half),
        _faint("true class", MARGIN + half, layout.top + wide(10, NAME_SIZE), upwards=True),
    ]


def _faint(content: str, x: float, y: float, *, upwards: bool = False) -> str:
    """A text of our own."""
    room = wide(len(content), NAME_SIZE)
    return text(content, x, y, width=room, size=NAME_SIZE, upwards=upwards, class_="faint")


def _names(matrix: Matrix, layout: Layout, called: ClassNames) -> list[str]:
    """Those of classes, or their numbers here and there, on both axes."""
    step = 1 if matrix.named else next(s for s in _STEPS if s * layout.cell >= _TICKS_APART)
    room = layout.left - 2 * GAP - MARGIN - 1.4 * NAME_SIZE
    parts = []
    for row in range(0, len(matrix), step):
        name, y = matrix.name(row, called), layout.y(row) + layout.cell / 2
        parts += [
            text(name, layout.left - GAP, y, width=room, size=layout.size, anchor="end"),
            _above(layout, row, name),
        ]
    return [*parts, _above(layout, len(matrix), OTHERS)] if matrix.others else parts


def _above(layout: Layout, column: int, name: str) -> str:
    x = layout.x(column) + layout.width_of(column) / 2
    room = layout.top - 2 * GAP - HEAD - 1.4 * NAME_SIZE
    return text(name, x, layout.top - GAP, width=room, size=layout.size, upwards=True)


def _background(layout: Layout) -> list[str]:
    boxes = [(layout.left, layout.side)]
    if layout.others:
        boxes.append((layout.right - layout.others, layout.others))
    return [
        element("rect", class_="raised", x=x, y=layout.top, width=width, height=layout.side)
        for x, width in boxes
    ]


def _cells(matrix: Matrix, layout: Layout, called: ClassNames) -> list[str]:
    """Cells one by one; each tells, where a mouse rests on it, what it is."""
    names = [shorten(called[number], _TOLD_CELLS) for number in matrix.classes]
    names.append(OTHERS)
    parts = []
    for row, column, count in matrix.cells:
        total, width = matrix.totals[row], layout.width_of(column)
        what = "right" if row == column else f"taken for {names[column]}"
        told = f"{names[row]}: {count} of {total} {what} ({100 * count / total:.2f} %)"
        parts.append(
            element(
                "rect",
                element("title", escape(told)),
                class_="right" if row == column else "wrong",
                x=layout.x(column) + 0.5,
                y=layout.y(row) + 0.5,
                width=width - 1,
                height=layout.cell - 1,
                fill_opacity=layout.strength(count / total),
            )
        )
        if matrix.numbered:
            parts.append(
                text(
                    str(count),
                    layout.x(column) + width / 2,
                    layout.y(row) + layout.cell / 2,
                    width=width,
                    size=layout.size,
                    anchor="middle",
                    pointer_events="none",
                )
            )
    return [*parts, *_accuracies(matrix, layout)]


def _accuracies(matrix: Matrix, layout: Layout) -> Iterable[str]:
    """Of each row, to its right."""
    right = {row: count for row, column, count in matrix.cells if row == column}
    for row, total in enumerate(matrix.totals):
        yield text(
            f"{100 * right.get(row, 0) / total:.1f} %",
            layout.accuracies,
            layout.y(row) + layout.cell / 2,
            width=wide(7, layout.size),
            size=layout.size,
            anchor="end",
            class_="faint",
        )


def _dots(matrix: Matrix, layout: Layout) -> str:
    """Cells without names, those of one colour as one path: there may be many."""
    paths: dict[tuple[str, float], list[str]] = {}
    for row, column, count in matrix.cells:
        colour = (
            "right" if row == column else "wrong",
            round(layout.strength(count / matrix.totals[row]), 1),
        )
        x, y, width = layout.x(column), layout.y(row), layout.width_of(column)
        dot = f"M{x:.6g} {y:.6g}h{width:g}v{layout.cell:g}h-{width:g}z"
        paths.setdefault(colour, []).append(dot)
    drawn = [
        element("path", class_=kind, fill_opacity=strength, d="".join(dots))
        for (kind, strength), dots in sorted(paths.items())
    ]
    return element("g", *drawn, shape_rendering="crispEdges")


def _pairs(
    confusion: Confusion, matrix: Matrix, layout: Layout, called: ClassNames
) -> Iterable[str]:
    """What is confused most often, as a list."""
    left, one = layout.pairs_left, wide(1, NAME_SIZE)
    yield _faint("taken for another most often", left, layout.top + PAIR_HEIGHT / 2)
    for i, (true, answer, count) in enumerate(confusion.mistakes()[: layout.pairs], 1):
        y = layout.top + (i + 0.5) * PAIR_HEIGHT
        columns = (
            (str(count), 6.0, 6, "end"),
            (_pair_name(matrix, called, true), 8.0, PAIR_CELLS, "start"),
            ("→", PAIR_CELLS + 8.7, 2, "start"),
            (_pair_name(matrix, called, answer), PAIR_CELLS + 11.5, PAIR_CELLS, "start"),
        )
        for content, x, cells, anchor in columns:
            yield text(content, left + x * one, y, width=cells * one, size=NAME_SIZE, anchor=anchor)


def _pair_name(matrix: Matrix, called: ClassNames, number: int) -> str:
    """With the number where that is what axes say."""
    name = called[number]
    if not matrix.named and name != str(number):
        name = f"{number} {name}"
    return shorten(name, PAIR_CELLS)


def _legend(layout: Layout) -> Iterable[str]:
    """Both colours in some strengths."""
    one = wide(1, NAME_SIZE)
    top = layout.legend + GAP
    yield _faint("share of the images of a true class", MARGIN, top)
    for kind, y in (("right", top + 22), ("wrong", top + 44)):
        yield text(kind, MARGIN, y, width=6 * one, size=NAME_SIZE)
        for i, share in enumerate(_LEGEND):
            x = MARGIN + (7 + 11 * i) * one
            yield element(
                "rect",
                class_=kind,
                x=x,
                y=y - 7,
                width=22,
                height=14,
                fill_opacity=layout.strength(share),
            )
            yield _faint(f"{100 * share:.0f} %", x + 28, y)
