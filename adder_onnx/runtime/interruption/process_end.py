"""An end of the process that daemon threads in a run do not turn into an abort.

Once the interpreter ends, Python ends a thread that asks for its lock by unwinding the thread's
stack, and frames of C++, here onnxruntime's, turn that into an abort of the process. So, at exit:

1. runs under way are ended early, and waited for, so that no thread comes out of onnxruntime later;
2. a thread that comes out of a run, or begins one, sleeps until the process is gone. The main
   thread is no such thread: functions registered with `atexit` may run models.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn, Protocol, TypeVar

__all__ = ["guarded", "in_main_thread"]

T = TypeVar("T")

_MOST_SECONDS = 2.0
"""That are waited at exit: a single operator of onnxruntime is not ended early."""

_POLL_SECONDS = 0.005


class _Cancellable(Protocol):
    def cancel(self) -> None:
        """Ends a run early; may be called from any thread, and more than once."""


class _Runs:
    """The runs under way in this process, and whether it ends."""

    def __init__(self) -> None:
        self.under_way: dict[object, _Cancellable] = {}
        self.is_ending = False

    def end(self) -> None:
        """Ends all runs, and waits for them."""
        self.is_ending = True
        latest = time.monotonic() + _MOST_SECONDS
        while self.under_way and time.monotonic() < latest:
            for run in list(self.under_way.values()):
                run.cancel()
            time.sleep(_POLL_SECONDS)


_runs = _Runs()
atexit.register(_runs.end)
if hasattr(os, "register_at_fork"):
    # The child has none of the threads that these runs are in.
    os.register_at_fork(after_in_child=_runs.under_way.clear)


def guarded(work: Callable[[], T], run: _Cancellable) -> T:
    """What ``work`` gives, which may call onnxruntime; every such call is made within one.

    Args:
        work: what to do.
        run: what ends it early.
    """
    key = object()
    _runs.under_way[key] = run  # before it looks: what comes later is waited for, or sleeps
    try:
        if not _must_sleep():
            return work()
    finally:
        _runs.under_way.pop(key, None)
        if _must_sleep():
            _sleep()
    raise AssertionError("a thread that sleeps has woken")


def in_main_thread() -> bool:
    """Whether the caller's is the thread that takes signals."""
    return threading.get_ident() == threading.main_thread().ident


def _must_sleep() -> bool:
    return _runs.is_ending and not in_main_thread()


def _sleep() -> NoReturn:
    lock = threading.Lock()
    while True:
        lock.acquire()
