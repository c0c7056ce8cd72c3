"""How texts of others are shown, which come from files and may hold anything.

1. What cannot be seen, moves a terminal's cursor or turns the direction of text becomes a mark, as
   does what XML or Unicode does not allow: a name is one line.
2. A long name loses its middle, since names that begin alike end differently.
"""

from __future__ import annotations

from rich.cells import cell_len

__all__ = ["shorten", "visible"]

_MARK = "·"
_LEFT_OUT = "…"


def visible(text: str) -> str:
    """A text by rule 1."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _MARK for c in text)


def shorten(text: str, cells: int) -> str:
    """A text by rules 1 and 2, at most so many cells wide; some characters take two."""
    shown = visible(text[:cells] + text[-cells:] if len(text) > 2 * cells else text)
    if len(text) <= 2 * cells and cell_len(shown) <= cells:
        return shown
    tail = _fitting(shown[::-1], cells // 2)[::-1]
    return _fitting(shown, cells - 1 - cells // 2) + _LEFT_OUT + tail


def _fitting(text: str, cells: int) -> str:
    """As much of the beginning as fits."""
    taken = 0
    for i, character in enumerate(text):
        taken += cell_len(character)
        if taken > cells:
            return text[:i]
    return text
