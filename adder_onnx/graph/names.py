"""Names that are not taken yet."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Names"]


class Names:
    """Names that are taken. None is ever given back, so finding a free one takes no search.

    Args:
        taken: those taken at first; None among them stands for no name.
        first: the number that is tried first behind a name that is taken.
    """

    def __init__(self, taken: Iterable[str | None] = (), first: int = 1) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        self._first = first
        self.take(taken)

    def take(self, names: Iterable[str | None]) -> None:
        self._taken.update(name for name in names if name is not None)

    def free(self, name: str) -> str:
        """The name, or `numbered` where it is taken; it is then taken."""
        if name in self._taken:
            return self.numbered(name)
        self._taken.add(name)
        return name

    def numbered(self, name: str) -> str:
        """The name with the lowest number behind it that is free; it is then taken."""
        number = self._next.get(name, self._first)
        while f"{name}_{number}" in self._taken:
            number += 1
        self._next[name] = number + 1
        self._taken.add(f"{name}_{number}")
        return f"{name}_{number}"
