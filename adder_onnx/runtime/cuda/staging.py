"""Copies between the CPU's and a GPU's memory through a bounded amount of pinned memory.

A GPU copies by itself, beside the CPU and at the bus's full rate, only what is pinned. So an array
goes piece by piece through two pinned buffers: while one piece is on the bus, the CPU copies the
next one. The caller's own array is never read or written once a call has returned.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_LANES", "PIECE_BYTES", "Staging", "staging_of"]

PIECE_BYTES = 4 << 20
"""Of a buffer: large enough for the bus's full rate, small enough to begin soon."""

MAX_LANES = 4
"""Transfers of a GPU at the same time; 32 MiB of pinned memory in all."""

_stagings: dict[int, Staging] = {}
_lock = threading.Lock()


def staging_of(number: int) -> Staging:
    """What all sessions of a process on a GPU share, by its number."""
    import cupy

    with _lock:
        return _stagings.setdefault(number, Staging(cupy))


class _Buffer:
    """A piece of pinned memory, and the event after which the GPU needs it no more."""

    def __init__(self, cupy: Any) -> None:
        memory = cupy.cuda.alloc_pinned_memory(PIECE_BYTES)
        self.bytes = np.frombuffer(memory, np.uint8, PIECE_BYTES)
        self.event = cupy.cuda.Event(disable_timing=True)

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)


class _Lane:
    """The two buffers of a transfer."""

    def __init__(self, cupy: Any) -> None:
        self.buffers = (_Buffer(cupy), _Buffer(cupy))

    @property
    def is_idle(self) -> bool:
        return all(buffer.event.done for buffer in self.buffers)


class Staging:
    """Transfers of the GPU that is current; several threads may use it at once.

    Args:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self._free: deque[_Lane] = deque()
        self._made = 0
        self._changed = threading.Condition()

    def upload(self, source: NDArray[Any], address: int, stream: Any) -> None:
        """Copies an array in C order to the GPU's memory, in the order of a stream."""
        copy, kind = self._runtime.memcpyAsync, self._runtime.memcpyHostToDevice
        with self._lane() as lane:
            for (start, piece), buffer in zip(
                _pieces(source), itertools.cycle(lane.buffers), strict=False
            ):
                buffer.event.synchronize()
                buffer.bytes[: piece.size] = piece
                copy(address + start, buffer.address, piece.size, kind, stream.ptr)
                buffer.event.record(stream)

    def download(self, address: int, target: NDArray[Any], stream: Any) -> None:
        """Copies from the GPU's memory to an array in C order; it is complete at the end."""
        copy, kind = self._runtime.memcpyAsync, self._runtime.memcpyDeviceToHost
        with self._lane() as lane:
            before: tuple[NDArray[np.uint8], _Buffer] | None = None
            for (start, piece), buffer in zip(
                _pieces(target), itertools.cycle(lane.buffers), strict=False
            ):
                buffer.event.synchronize()
                copy(buffer.address, address + start, piece.size, kind, stream.ptr)
                buffer.event.record(stream)
                if before:
                    _take_out(*before)
                before = (piece, buffer)
            if before:
                _take_out(*before)

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        lane = self._take()
        try:
            yield lane
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify()

    def _take(self) -> _Lane:
        """A lane for one transfer: preferably one whose last transfer is over."""
        with self._changed:
            while True:
                for lane in self._free:
                    if lane.is_idle:
                        self._free.remove(lane)
                        return lane
                if self._made < MAX_LANES:
                    lane = _Lane(self._cupy)
                    self._made += 1
                    return lane
                if self._free:
                    return self._free.popleft()
                self._changed.wait()


def _pieces(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The bytes of an array in C order, by pieces with their offsets."""
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, data.size, PIECE_BYTES):
        yield start, data[start : start + PIECE_BYTES]


def _take_out(piece: NDArray[np.uint8], buffer: _Buffer) -> None:
    buffer.event.synchronize()
    piece[:] = buffer.bytes[: piece.size]
