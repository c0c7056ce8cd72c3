"""What a command is given that it must refuse, or take, without harm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    command: str
    arguments: tuple[str, ...]
