"""What runs on a GPU have for themselves: streams, and the executors bound to them."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adder_onnx.errors import DeviceError
from adder_onnx.runtime.closed_runner import closed_error
from adder_onnx.runtime.cuda.gpu import Gpu
from adder_onnx.runtime.parts import Executor

__all__ = ["MAX_CONTEXTS", "Context", "ContextPool"]

MAX_CONTEXTS = 4
"""Runs at the same time, unless more were asked for; more of them wait for one to end."""

_logger = logging.getLogger(__name__)


class Context:
    """A stream, and the executors that are bound to it.

    onnxruntime keeps the bare address of the stream, and uses it to the end of its sessions. So
    whatever ends a context, `close`, the garbage collector or the interpreter's exit, waits for the
    stream's work, then drops the executors, and the stream last.

    Args:
        gpu: where.
        make: makes the executors for a new stream.
    """

    def __init__(self, gpu: Gpu, make: Callable[[Any], list[Executor]]) -> None:
        self.stream = gpu.new_stream()
        with gpu.using(self.stream):
            self.executors = make(self.stream)
        # Called before the object lets go of its stream.
        self._end = weakref.finalize(self, _end, gpu, self.executors, self.stream)

    def close(self) -> None:
        """Ends it, but for the stream, which goes with the object; once more does nothing."""
        self._end()


def _end(gpu: Gpu, executors: list[Executor], stream: Any) -> None:
    try:
        gpu.synchronize(stream)
        executors.clear()
        gpu.free_unused(stream)  # no other stream would use it
    except DeviceError as error:  # nobody waits for what it would say
        _logger.info("at the end of a context: %s", error)
        executors.clear()


def _closed() -> Context:
    raise closed_error()


class ContextPool:
    """A bounded number of contexts, made when they are needed, each lent to one run at a time.

    Args:
        make: makes one.
        ahead: how many are made at once; more than `MAX_CONTEXTS` raise the bound.
    """

    def __init__(self, make: Callable[[], Context], ahead: int) -> None:
        self._make = make
        self._free: queue.LifoQueue[Context] = queue.LifoQueue()
        self._room = threading.Semaphore(max(ahead, MAX_CONTEXTS))
        self._all: weakref.WeakSet[Context] = weakref.WeakSet()
        self._lock = threading.Lock()  # of that
        self._is_closed = False
        for context in [self._new() for _ in range(ahead)]:
            self._free.put(context)

    def all(self) -> list[Context]:
        """Those that there are at the moment, in use or not."""
        with self._lock:
            return list(self._all)

    @contextmanager
    def borrow(self) -> Iterator[Context]:
        """A context for one run.

        Raises:
            InputError: the pool is closed.
        """
        with self._room:
            if self._is_closed:
                raise closed_error()
            try:
                context = self._free.get_nowait()
            except queue.Empty:
                context = self._new()
            try:
                yield context
            finally:
                self._free.put(context)

    def close(self) -> None:
        """Ends the contexts that are free, and lends none any more.

        The others end with the pool, which the runs that use them keep.
        """
        self._is_closed = True
        self._make = _closed  # lets go of what contexts are made of
        while True:
            try:
                self._free.get_nowait().close()
            except queue.Empty:
                return

    def _new(self) -> Context:
        context = self._make()
        with self._lock:
            self._all.add(context)
        return context
