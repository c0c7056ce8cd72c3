"""What pictures show of names, which come from files and may hold anything.

1. What cannot be seen, or turns the direction of text, becomes a mark, as does what XML or Unicode
   does not allow: a name is one line.
2. A long one loses its middle, since names that begin alike end differently.
3. A class without a name is called by its number, and one whose name others have, too, by both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len

__all__ = ["ClassNames", "shorten", "visible"]

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_MARK = "·"
_LEFT_OUT = "…"


class ClassNames:
    """What the classes of a model are called.

    Args:
        names: one for each class, if there are any.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = names
        self._uses = Counter(names or ())

    def __getitem__(self, number: int) -> str:
        """What a class is called, unlike any other."""
        if self._names is None:
            return str(number)
        name = self._names[number]
        return name if self._uses[name] == 1 and name.strip() else f"{name} ({number})".strip()


def visible(text: str) -> str:
    """A name by rule 1."""
    return _UNSEEN.sub(_MARK, text)


def shorten(text: str, cells: int) -> str:
    """A name by rules 1 and 2, at most so many cells wide; some characters take two."""
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
