"""What is in the place of a runner once its session is closed."""

from __future__ import annotations

from typing import Any, NoReturn

from adder_onnx.errors import InputError
from adder_onnx.runtime.chain import ChainMemory

__all__ = ["ClosedRunner", "closed_error"]


class ClosedRunner:
    """Has the methods of a runner, and says in the place of a run that the session is closed.

    Args:
        device: where the session ran.
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def adopt(self, value: Any) -> NoReturn:
        """Raises InputError."""
        raise closed_error()

    def caller(self, values: object) -> NoReturn:
        """Raises InputError."""
        raise closed_error()

    def run(self, *_: object) -> NoReturn:
        """Raises InputError."""
        raise closed_error()

    def memory(self) -> list[ChainMemory]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Once more does nothing."""


def closed_error() -> InputError:
    """What to raise where a closed session is run."""
    return InputError("the session is closed: make a new one")
