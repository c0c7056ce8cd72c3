"""What ends a run before it is through: a time that is up, a signal, RunOptions, the process's end.

Kernels look at a flag between their tasks, and onnxruntime at its RunOptions between operators;
mostly both end within milliseconds. A run whose caller is to come back in any case is made by
another thread (`workers.py`). The caller waits, and when something ends the run, sets both, waits
another moment, and raises; what does not end by then, a single operator that takes minutes, goes on
behind its back, and its results are dropped.

A run is made by its caller's own thread, which costs nothing, where nothing but a signal can end it
and it is known to be short (`pace.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from adder_onnx.errors import RunTerminatedError, RunTimeoutError
from adder_onnx.kernels.cpu import StopFlag
from adder_onnx.runtime.interruption import workers
from adder_onnx.runtime.interruption.process_end import guarded, in_main_thread
from adder_onnx.runtime.interruption.run_options import copy_run_options, make_run_options

__all__ = ["RunControl", "call_interruptibly"]

T = TypeVar("T")

_WAKE_SECONDS = 0.2
"""After which a caller that waits wakes: the system may have given a signal to another thread."""

_POLL_SECONDS = 0.02
"""The same where it looks at RunOptions, or a time is soon up."""

_GRACE_SECONDS = 0.5
"""How long a run that is ended is waited for."""


class RunControl:
    """What ends one run early; `cancel` and `check` may be called from any thread.

    Args:
        given: the caller's ``onnxruntime.RunOptions``, if any: ``terminate`` may be set during the
            run.
        timeout: seconds from now, if any.
        apart: whether another thread makes the run though it has neither.

    Attributes:
        stop: set where the run is to end; kernels look at it.
        options: ``onnxruntime.RunOptions`` of this run alone.
    """

    def __init__(
        self, given: Any = None, timeout: float | None = None, *, apart: bool = False
    ) -> None:
        self.stop = StopFlag()
        self.options = make_run_options() if given is None else copy_run_options(given)
        self._others: list[Any] = []
        self._given = given
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._is_apart = apart or given is not None or timeout is not None

    def cancel(self) -> None:
        """Ends the run as soon as may be."""
        self.stop.set()
        for options in (self.options, *self._others):
            options.terminate = True

    def new_options(self) -> Any:
        """Further ``RunOptions`` of this run alone, for a part that needs them changed."""
        options = make_run_options() if self._given is None else copy_run_options(self._given)
        self._others.append(
            options
        )  # before it looks: whatever ends the run finds them, or it sees
        if self.stop.is_set:
            options.terminate = True
        return options

    def check(self) -> None:
        """Raises where the run is to end.

        Raises:
            RunTerminatedError: it was ended from outside.
            RunTimeoutError: its time is up.
        """
        if self.stop.is_set or (self._given is not None and self._given.terminate):
            raise RunTerminatedError("the run was terminated before it was through")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise RunTimeoutError(
                f"the run took longer than the {self._timeout:g} seconds that it may: allow more, "
                "or give it a smaller batch"
            )

    def call(self, work: Callable[[], T], *, leaves: bool = True) -> T:
        """What ``work``, a part of the run or all of it, gives.

        Args:
            work: what to do.
            leaves: whether the caller goes when the run is ended and does not end; else it stays
                until it has, since memory is used that others would get.

        Returns:
            The result of ``work``.

        Raises:
            RunTerminatedError: as `check`.
            RunTimeoutError: as `check`.
        """
        if not self._is_apart:
            return work()
        self.check()
        call: workers.Call[T] | None = None
        try:
            call = workers.begin(partial(guarded, work, self))
            while not call.wait(self._seconds_to_wait()):
                self.check()
        except BaseException:
            self.cancel()
            if call is not None:
                _wait_for_end(call, leaves=leaves)
            raise
        return call.result()

    def _seconds_to_wait(self) -> float:
        seconds = _WAKE_SECONDS if self._given is None else _POLL_SECONDS
        if self._deadline is None:
            return seconds
        return max(0.0, min(seconds, self._deadline - time.monotonic()))


def call_interruptibly(work: Callable[[StopFlag], T]) -> T:
    """What ``work`` gives: native code that looks at the flag, so that signals are taken."""
    control = RunControl(apart=in_main_thread())
    return control.call(lambda: work(control.stop))


def _wait_for_end(call: workers.Call[Any], *, leaves: bool) -> None:
    if call.wait(_GRACE_SECONDS):
        return
    while not leaves and not call.wait(_WAKE_SECONDS):
        pass
