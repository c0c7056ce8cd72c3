"""One call of a command with hostile input."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    name: str
    command: str
    arguments: tuple[str, ...]
