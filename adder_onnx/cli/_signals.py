"""What the commands do at SIGINT, SIGTERM and SIGHUP: end, with nothing half-written."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "Interrupted", "Interruption", "describe", "ending_at_once", "ignoring"]

INTERRUPTED = 128
"""The exit status of a command that a signal ended is this and the signal's number."""

_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


_AGAIN = 0.02


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end; raised wherever the main thread is.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(describe(number))
        self.number = number


def describe(number: int) -> str:
    """What a command says of the signal that ended it."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


class Interruption:
    """A context in which a signal raises `Interrupted`, and that knows whether one has come.

    Code that catches too much, as modules do while they are imported, may turn it into another
    error or lose it. Signals within a second after it are one with it: what it interrupts may
    clean up. Signals that are ignored, as nohup has it, stay so. In another thread than the main
    one, which alone is told of signals, it does nothing.

    Attributes:
        number: of the first signal that came; None until one has.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._last = float("-inf")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches for signals until it is left."""
        before = {number: signal.getsignal(number) for number in _caught()}
        hook = sys.unraisablehook

        def not_lost(lost: sys.UnraisableHookArgs) -> None:
            """Where nothing can be raised, in a callback perhaps, the signal comes once more."""
            if isinstance(lost.exc_value, Interrupted):
                self._last = float("-inf")
                # Raised here, it would be lost again.
                again = (os.getpid(), lost.exc_value.number)
                threading.Timer(_AGAIN, os.kill, again).start()
            else:
                hook(lost)

        try:
            for number in before:
                signal.signal(number, self._interrupt)
            sys.unraisablehook = not_lost
            yield
        finally:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last > 1:
            self._last = now
            self.number = self.number or number
            raise Interrupted(number)


def ending_at_once(program: str) -> None:
    """From now on a signal ends the process at once, for while nothing can be left half-written.

    Args:
        program: its name, for the line on standard error.
    """

    def end(number: int, _: FrameType | None) -> None:
        try:
            os.write(2, f"{program}: {describe(number)}\n".encode())
        finally:
            os._exit(INTERRUPTED + number)

    for number in _caught():
        signal.signal(number, end)


def ignoring() -> None:
    """From now on signals do nothing: the command is done, and its exit status stands."""
    for number in _caught():
        signal.signal(number, signal.SIG_IGN)


def _caught() -> list[int]:
    if threading.current_thread() is not threading.main_thread():
        return []
    return [n for n in _NUMBERS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
