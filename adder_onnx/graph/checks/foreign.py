"""The border to libraries that work on a user's file: onnx, onnx_ir, protobuf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adder_onnx.errors import AdderError, ModelError

__all__ = ["first_line", "last_line", "refusals"]


def first_line(error: Exception) -> str:
    """The first line of an error's message; its class where there is no message."""
    return _lines(error)[0]


def last_line(error: Exception) -> str:
    """The last, most specific line of onnx's nested inference errors."""
    return _lines(error)[-1]


def _lines(error: Exception) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines or [type(error).__name__]


@contextmanager
def refusals(what: str, line: Callable[[Exception], str] = first_line) -> Iterator[None]:
    """Within it, what a library raises means that it refuses the model.

    What a file can make a library raise has no common base but Exception. Nothing of our own
    belongs inside.

    Args:
        what: the begin of the message, before the library's own.
        line: what is taken of that.

    Raises:
        ModelError: for every other exception.
    """
    try:
        yield
    except AdderError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {line(error)}") from error
