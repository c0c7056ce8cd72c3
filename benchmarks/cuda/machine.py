"""The GPU as the benchmark uses it: the one thing that a test replaces to run all the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.bound import measure, measure_distances
from adder_onnx.kernels.cuda.launch.device import Device
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.cuda.gpu import Gpu
from benchmarks.cuda.timing import EventTimer, Timer, WallTimer

__all__ = [
    "CudaMachine",
    "CupyMachine",
    "Inputs",
    "Machine",
    "SessionMachine",
    "copies_beyond",
]

_BUSY_CYCLES = 20_000_000
"""Ten milliseconds at 2 GHz: longer than a run of the shipped network."""


class Machine(Protocol):
    """A GPU, its memory, and clocks for what it does.

    Attributes:
        session_device: as `adder_onnx.InferenceSession` takes it.
        torch_device: as torch names it.
        cache_bytes: of the L2 cache.
        kernel_timer: for what the GPU does.
        wall_timer: for what a caller waits for.
    """

    session_device: str
    torch_device: str
    cache_bytes: int
    kernel_timer: Timer
    wall_timer: Timer

    @property
    def device(self) -> Device:
        """Launches our kernels."""

    def random(self, shape: Sequence[int], type_: str) -> Any:
        """An array of `device` with standard normal values, or for uint8 any bytes."""

    def download(self, array: Any) -> NDArray[Any]:
        """A NumPy array with the values of one of `device`."""

    def bound(self, type_: str) -> float:
        """Taps per second of the bare inner loop."""

    def distances(self) -> dict[str, float]:
        """The same of each way to add up absolute differences of uint8."""

    def sm_clock(self) -> float:
        """Cycles per second of a multiprocessor."""

    def release(self) -> None:
        """Gives unused memory back to the GPU."""


class SessionMachine(Machine, Protocol):
    """A GPU for sessions, too."""

    @property
    def gpu(self) -> Gpu:
        """What sessions on it use."""

    def busy_stream(self) -> AbstractContextManager[Any]:
        """Makes a new stream current that has work for some time."""


class CupyMachine:
    """The first GPU, through CuPy, on the null stream."""

    session_device = "cuda"
    torch_device = "cuda"

    def __init__(self) -> None:
        import cupy

        self._cupy: Any = cupy
        self.device = self.gpu = CupyGpu(0)
        runtime = cupy.cuda.runtime
        self.cache_bytes = int(runtime.deviceGetAttribute(runtime.cudaDevAttrL2CacheSize, 0))
        self._events = EventTimer(cupy)
        self.kernel_timer: Timer = self._events
        self.wall_timer: Timer = WallTimer(cupy.cuda.Device(0).synchronize)
        self._rng = np.random.default_rng(0)

    def random(self, shape: Sequence[int], type_: str) -> Any:
        if type_ == "uint8":
            return self.device.upload(self._rng.integers(0, 256, shape, np.uint8))
        return self.device.upload(self._rng.standard_normal(shape, np.float32).astype(type_))

    def download(self, array: Any) -> NDArray[Any]:
        return self.device.download(array)

    def bound(self, type_: str) -> float:
        return measure(type_)

    def sm_clock(self) -> float:
        return self._events.clock()

    def release(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()

    def distances(self) -> dict[str, float]:
        return measure_distances()

    @contextmanager
    def busy_stream(self) -> Iterator[None]:
        with self._cupy.cuda.Stream(non_blocking=True) as stream:
            self._events.wait(_BUSY_CYCLES)
            yield
            stream.synchronize()


class CudaMachine(CupyMachine):
    """The first GPU, through CuPy and torch, both on the null stream."""

    def __init__(self) -> None:
        import torch

        super().__init__()
        self._torch: Any = torch
        torch.backends.cudnn.benchmark = True

    def random(self, shape: Sequence[int], type_: str) -> Any:
        torch = self._torch
        if type_ == "uint8":
            values = torch.randint(256, tuple(shape), dtype=torch.uint8, device="cuda")
        else:
            values = torch.randn(*shape, dtype=getattr(torch, type_), device="cuda")
        return self.device.adopt(values)

    def release(self) -> None:
        super().release()
        self._torch.cuda.empty_cache()


def copies_beyond(cache_bytes: int, size: int) -> int:
    """How many arrays of ``size`` bytes are together more than twice the cache."""
    return max(2 * cache_bytes // size + 1, 2)


class Inputs:
    """Random arrays of one shape that take turns, so many that none stays in the L2 cache.

    Args:
        machine: where.
        shape: of one of them.
        type_: ``float32``, ``float16`` or ``uint8``.

    Attributes:
        arrays: all of them, along the first axis.
    """

    def __init__(self, machine: Machine, shape: Sequence[int], type_: str) -> None:
        size = int(np.prod(shape)) * np.dtype(type_).itemsize
        copies = copies_beyond(machine.cache_bytes, size)
        self.arrays = machine.random((copies, *shape), type_)
        first = machine.device.pointer(self.arrays)
        self._turns = itertools.cycle(first + i * size for i in range(copies))

    def next_address(self) -> int:
        """Where the next one begins."""
        return next(self._turns)
