"""What the classes of a model are called where they are shown to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["ClassNames"]


class ClassNames:
    """What the classes of a model are called, each unlike any other.

    A class without a name is called by its number, and one whose name others have, too, by both.

    Args:
        names: one for each class, if there are any.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = names
        self._uses = Counter(names or ())

    def __getitem__(self, number: int) -> str:
        """What a class is called."""
        if self._names is None:
            return str(number)
        name = self._names[number]
        return name if self._uses[name] == 1 and name.strip() else f"{name} ({number})".strip()
