"""What the commands do at SIGINT, SIGTERM and SIGHUP: end, with nothing half-written."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

__all__ = ["INTERRUPTED", "Interrupted", "Interruption", "describe", "ending_at_once", "ignoring"]

INTERRUPTED = 128
"""The exit status of a command that a signal ended is this and the signal's number."""

_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


_AGAIN = 0.02
"""Seconds after which a signal that was lost comes once more."""


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
        self._lost: int | None = None
        self._sender: threading.Thread | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches for signals until it is left."""
        before = {number: signal.getsignal(number) for number in _caught()}
        self._hook = sys.unraisablehook
        try:
            for number in before:
                signal.signal(number, self._interrupt)
            sys.unraisablehook = self._not_lost
            yield
        finally:
            self._lost = None
            if self._sender:
                self._sender.join()
            sys.unraisablehook = self._hook
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._lost is not None and _is_within(frame, self._not_lost.__code__):
            return  # Raised here, it would be lost again: it comes once more after this.
        now = time.monotonic()
        if self._lost is not None or now - self._last > 1:
            self._lost = None
            self._last = now
            self.number = self.number or number
            raise Interrupted(number)

    def _not_lost(self, lost: sys.UnraisableHookArgs) -> None:
        """Where nothing can be raised, in a callback perhaps, the signal comes once more."""
        if not isinstance(lost.exc_value, Interrupted):
            self._hook(lost)
            return
        self._lost = number = lost.exc_value.number

        def send() -> None:
            time.sleep(_AGAIN)
            while self._lost is not None:
                _send_to_main_thread(number)
                time.sleep(_AGAIN)

        self._sender = threading.Thread(target=send, daemon=True)
        self._sender.start()


def _is_within(frame: FrameType | None, code: CodeType) -> bool:
    """Whether a frame is one of a function, or was called by it."""
    while frame and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _send_to_main_thread(number: int) -> None:
    """Signals the thread that runs handlers, so that what it waits for ends, be it asleep."""
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident):
        signal.pthread_kill(main, number)
    else:
        os.kill(os.getpid(), number)


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
