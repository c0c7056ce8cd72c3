"""Standard output that says so where it cannot be written."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from adder_onnx.errors import AdderError

__all__ = ["ReaderGoneError", "standard_output"]


class ReaderGoneError(Exception):
    """Nobody reads standard output any more, which is no fault of the command's."""


@contextmanager
def standard_output() -> Iterator[None]:
    """Within it, and at its end, what cannot be written to standard output is an error of its own.

    Raises:
        ReaderGoneError: it is a pipe whose reader has gone.
        AdderError: it is closed, or the disk is full.
    """
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        # Names of files and classes may hold what the terminal's encoding does not.
        before.reconfigure(errors="backslashreplace")
    output = _Output(before)
    sys.stdout = output
    try:
        yield
        output.flush()
    except SystemExit:  # argparse's, after the help
        output.flush()
        raise
    finally:
        sys.stdout = before


class _Output:
    """A stream, with other errors."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._errors():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with self._errors():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            self._discard()
            raise ReaderGoneError from error
        except OSError as error:
            self._discard()
            why = error.strerror or error
            raise AdderError(f"cannot write to standard output: {why}") from error

    def _discard(self) -> None:
        """Lets what is still held go nowhere: Python tries to write it at exit."""
        with suppress(OSError):  # it may be no file at all
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
