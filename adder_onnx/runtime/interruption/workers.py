"""Threads that make a call for another one, which can be interrupted while it waits.

Python's signal handlers, that of Ctrl-C among them, run in the main thread, and not while that is
in native code. A thread that waits for a lock is not: handlers run, and what they raise is raised
there. Handing a call over and back takes some 20 microseconds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Call", "begin"]

_MAX_IDLE = 8
"""Workers that are kept for later calls."""

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class Call(Generic[T]):
    """A call that a worker makes, or has made."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._done = threading.Lock()
        self._done.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None

    def make(self) -> None:
        """Makes the call; nothing is raised."""
        work, self._work = self._work, None
        assert work is not None
        try:
            self._results.append(work())
        except BaseException as error:
            self._error = error

    def end(self) -> None:
        """Lets those who wait go on."""
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Waits for the end, not longer than this, and says whether it has come."""
        return self._done.acquire(timeout=seconds)

    def result(self) -> T:
        """What the call gave; what it raised is raised."""
        if self._error is None:
            return self._results.pop()
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # whose traceback refers to this frame


class _Worker:
    def __init__(self) -> None:
        self._call: Call[Any] | None = None
        self._begin = threading.Lock()
        self._begin.acquire()
        threading.Thread(target=self._serve, name="adder-onnx-run", daemon=True).start()

    def begin(self, call: Call[Any]) -> None:
        self._call = call
        self._begin.release()

    def _serve(self) -> None:
        is_kept = True
        while is_kept:
            self._begin.acquire()
            call, self._call = self._call, None
            assert call is not None
            call.make()
            is_kept = len(_idle) < _MAX_IDLE
            if is_kept:
                _idle.append(self)
            call.end()
            del call  # and with it what it gave, which may be large


_idle: list[_Worker] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads are the parent's


def begin(work: Callable[[], T]) -> Call[T]:
    """Begins a call in a worker; where no thread can be had, makes it now, which is logged."""
    call = Call(work)
    try:
        worker = _take()
    except RuntimeError as error:
        _logger.warning("a run cannot be interrupted, since there is no thread for it: %s", error)
        call.make()
        call.end()
        return call
    worker.begin(call)
    return call


def _take() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()
