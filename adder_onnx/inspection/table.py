"""A table for a terminal, fitted to its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from adder_onnx.text import visible

__all__ = ["Column", "print_table"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        is_number: set to the right and never cut; text is cut where the terminal is narrow.
        need: how much the column is needed; those needed least are left out where a terminal is
            too narrow for all numbers.
    """

    title: str
    is_number: bool = True
    need: int = 9


_TEXT_WIDTH = 14
"""Characters that each column of text keeps."""


def print_table(
    console: Console, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> None:
    """Prints a table: a title, a heading, and a line for each row.

    rich's own tables look the same, and take a millisecond for each row.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [
        max(len(column.title), *(len(row[i]) for row in rows), 0) if rows else len(column.title)
        for i, column in enumerate(columns)
    ]
    least = [
        width if column.is_number else min(width, _TEXT_WIDTH)
        for column, width in zip(columns, widths, strict=True)
    ]
    kept = list(range(len(columns)))
    while sum(least[i] + 2 for i in kept) > console.width and len(kept) > 1:
        kept.remove(min(reversed(kept), key=lambda i: columns[i].need))
    # What is too much is taken from the widest text.
    while sum(widths[i] + 2 for i in kept) > console.width:
        widest = max(kept, key=lambda i: (not columns[i].is_number, widths[i]))
        widths[widest] -= 1

    def line(cells: Sequence[str]) -> str:
        return "  ".join(_fitted(cells[i], widths[i], columns[i].is_number) for i in kept)

    heading = line([column.title for column in columns])
    console.print(Text(visible(title).ljust(len(heading)), style="bold"))
    console.print(Text(heading, style="bold"), no_wrap=True, crop=False)
    for row in rows:
        console.out(line(row), highlight=False)


def _fitted(text: str, width: int, right: bool = False) -> str:
    """A text in so many columns of a terminal."""
    length = cell_len(text)
    if length > width:
        text, length = set_cell_size(text, width - 1) + "…", width
    filler = " " * (width - length)
    return filler + text if right else text + filler
