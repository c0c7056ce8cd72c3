"""A histogram of times as a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adder_onnx.inspection.histogram import MOST_BINS, Histogram

__all__ = ["has_blocks", "histogram_lines"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:#"
_CORNERS = ("└", "─", "┘")
_ASCII_CORNERS = ("+", "-", "+")


def has_blocks(encoding: str | None) -> bool:
    """Whether an encoding has the characters that histograms are made of."""
    try:
        "".join((_BLOCKS, *_CORNERS)).encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def histogram_lines(
    found: Histogram, marks: Mapping[str, float], *, rows: int, blocks: bool
) -> list[str]:
    """Bars, and below them an axis from the first edge to the last, in milliseconds.

    A bin is one column wide or, where there are few, several. After a gap comes the bar of what is
    beyond. A bin in which there is something is never empty.

    Args:
        found: of times in milliseconds.
        marks: places on the axis, by the one or two characters that stand there; one that would
            lie on another is left out, the last ones first.
        rows: lines that the highest bar has.
        blocks: whether bars are made of block characters, and else of ASCII.
    """
    levels = _BLOCKS if blocks else _ASCII
    wide = max(1, MOST_BINS // len(found.counts))
    heights = [count for count in found.counts for _ in range(wide)]
    if found.beyond:
        heights += [0, found.beyond, found.beyond]
    low, high = (f"{edge:.4g} ms" for edge in (found.edges[0], found.edges[-1]))
    axis = _axis(found, marks, wide * len(found.counts), _CORNERS if blocks else _ASCII_CORNERS)
    indent = " " * (len(low) + 2)
    bars = [f"{indent}{row}".rstrip() for row in _bars(heights, rows, levels)]
    return [*bars, f"{low} {axis} {high}"]


def _bars(counts: Sequence[int], rows: int, levels: str) -> list[str]:
    """Bars of so many rows, the upper one first."""
    steps, most = len(levels) - 1, max(counts)
    filled = [max(count > 0, round(rows * steps * count / most)) for count in counts]
    return [
        "".join(levels[min(max(height - row * steps, 0), steps)] for height in filled)
        for row in reversed(range(rows))
    ]


def _axis(
    found: Histogram, marks: Mapping[str, float], columns: int, corners: tuple[str, str, str]
) -> str:
    first, line, last = corners
    axis = [line] * columns
    span = found.edges[-1] - found.edges[0]
    for text, value in marks.items():
        column = int(columns * (value - found.edges[0]) / span)
        start = min(max(column - (len(text) - 1) // 2, 0), columns - len(text))
        # Marks that touch would read as one number.
        around = axis[max(start - 1, 0) : start + len(text) + 1]
        if all(place == line for place in around):
            axis[start : start + len(text)] = text
    return f"{first}{''.join(axis)}{last}"
