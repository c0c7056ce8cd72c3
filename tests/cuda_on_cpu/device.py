"""Stand-ins for a GPU: kernels run on the CPU, in memory between guard zones."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import KERNELS, Kernel
from tests.cuda_on_cpu.build import SOURCES, Program, load

__all__ = ["CpuDevice", "CpuGpu", "GpuArray", "Program"]

_GUARD = 4096
_POISON = 0xFF
"""Byte that unwritten memory and the zones beside it are filled with: NaN in any float type."""


_ALL = Program(SOURCES / "kernels.cu", KERNELS)


def _forget(library: Any, address: int, owner: object) -> None:
    """Takes an array off the library's list while ``owner`` still keeps its memory.

    Afterwards another thread may get that memory, and put an array of its own on the list.
    """
    library.remove_array(address)


class CpuDevice:
    """Implements `adder_onnx.kernels.cuda.launch.device.Device` with NumPy arrays.

    Args:
        backwards: whether the threads of a block take turns from the last to the first, and
            blocks do.
        async_copies: whether it has them, as GPUs of compute capability 8.0 and later.
        multiprocessors: how many it passes for.
        target: what its kernels pass for.
        program: what there is to launch.
    """

    def __init__(
        self,
        *,
        backwards: bool = False,
        async_copies: bool = True,
        multiprocessors: int = 8,
        target: str = "sm_90",
        program: Program = _ALL,
    ) -> None:
        self.multiprocessors = multiprocessors
        self.target = target
        self._library = load(program, async_copies=async_copies)
        self._backwards = backwards
        self._memory: list[weakref.ref[NDArray[np.uint8]]] = []
        self.launched: list[str] = []
        self.grids: list[Grid] = []

    def empty(self, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * _GUARD + 64, _POISON, np.uint8)
        start = _GUARD + -(memory.ctypes.data + _GUARD) % 64
        self._memory.append(weakref.ref(memory))
        first = memory.ctypes.data + start
        self._library.add_array(first, size)
        weakref.finalize(memory, self._library.remove_array, first)
        return memory[start : start + size].view(dtype).reshape(shape)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def clear(self, address: int, size: int) -> None:
        ctypes.memset(address, 0, size)

    def pointer(self, array: NDArray[Any]) -> int:
        return array.ctypes.data

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        structure = args.tobytes()
        assert len(structure) == kernel.args.itemsize
        failed = self._library.launch(
            kernel.expression.encode(),
            *grid,
            kernel.threads,
            structure,
            len(structure),
            self._backwards,
        )
        assert not failed, f"no kernel {kernel.expression} takes {len(structure)} bytes"
        self.launched.append(kernel.expression)
        self.grids.append(grid)

    def finish(self) -> None:
        pass

    def download(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.view(np.ndarray).copy()

    def check_guards(self) -> None:
        """Fails where something was written beside an array that is still there."""
        for reference in self._memory:
            memory = reference()
            if memory is not None:
                assert (memory[:_GUARD] == _POISON).all()
                assert (memory[-_GUARD:] == _POISON).all()


class GpuArray(np.ndarray):  # type: ignore[type-arg]
    """An array that passes for one of a GPU: whoever takes it for NumPy's fails."""

    def __dlpack_device__(self) -> tuple[int, int]:  # type: ignore[override]
        return (2, 0)

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an array of the GPU is computed with on the CPU")


class CpuGpu(CpuDevice):
    """Implements `adder_onnx.runtime.cuda.gpu.Gpu`; streams are numbers, and all is done at once.

    A graph is a list of launches with the arguments that they were captured with.

    Attributes:
        prepared: kernels that were compiled ahead; no other may be launched.
        replayed: how many graphs were started.
        waits: pairs of a stream and the one that it was made to wait for.
        on: the current stream.
        uploads: how many arrays have gone to the GPU.
        downloads: how many have come back.
    """

    name = "cuda:0"
    ort_device = ("cpu", 0)

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[int, int]] = []
        self.prepared: set[str] = set()
        self.replayed = 0
        self.streams = 0
        self.uploads = self.downloads = 0
        self._local = threading.local()

    @property
    def on(self) -> int:
        return getattr(self._local, "stream", 0)

    def prepare(self, kernels: Iterable[Kernel]) -> None:
        self.prepared |= {kernel.expression for kernel in kernels}

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        assert self._captured is None, "memory is taken while a graph is captured"
        return super().empty(shape, dtype).view(GpuArray)

    def upload(self, array: NDArray[Any]) -> Any:
        assert not isinstance(array, GpuArray)
        self.uploads += 1
        result = self.empty(array.shape, array.dtype)
        result.view(np.ndarray)[...] = array
        return result

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        assert self.on, "a kernel is launched on the caller's stream"
        assert kernel.expression in self.prepared, f"{kernel.expression} is compiled in a run"
        if self._captured is None:
            super().launch(kernel, grid, args)
        else:
            args = args.copy()
            self._captured.append(lambda: self.launch(kernel, grid, args))

    def clear(self, address: int, size: int) -> None:
        if self._captured is None:
            super().clear(address, size)
        else:
            self._captured.append(lambda: self.clear(address, size))

    @property
    def _captured(self) -> list[Callable[[], None]] | None:
        """The launches of the graph that this thread captures at the moment."""
        return getattr(self._local, "captured", None)

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        assert self.on, "a graph is captured on the caller's stream"
        launches: list[Callable[[], None]] = []
        self._local.captured = launches
        try:
            work()
        finally:
            self._local.captured = None
        return launches

    def replay(self, graph: list[Callable[[], None]]) -> None:
        self.replayed += 1
        for work in graph:
            work()

    def owns(self, value: Any) -> bool:
        return isinstance(value, GpuArray)

    def adopt(self, value: Any) -> Any:
        assert self.owns(value)
        return value

    def contiguous(self, array: Any) -> Any:
        if array.flags.c_contiguous:
            return array
        return self.wrap_values(np.ascontiguousarray(array.view(np.ndarray)))

    def wrap_values(self, values: NDArray[Any]) -> Any:
        result = self.empty(values.shape, values.dtype)
        result.view(np.ndarray)[...] = values
        return result

    def download(self, array: Any) -> NDArray[Any]:
        self.downloads += 1
        return super().download(array)

    def wrap(self, address: int, shape: Sequence[int], dtype: Any, owner: object) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
        self._library.add_array(address, size)
        weakref.finalize(memory, _forget, self._library, address, owner)
        return memory.reshape(shape).view(GpuArray)

    def copy(self, source: Any, destination: Any) -> None:
        destination.view(np.ndarray)[...] = source.view(np.ndarray)

    def free_unused(self, stream: int | None = None) -> None:
        pass

    def to_torch(self, array: Any) -> Any:
        assert not self.on, "torch takes over an array on a stream that is not the caller's"
        return sys.modules["torch"].from_numpy(array.view(np.ndarray))

    def new_stream(self) -> int:
        self.streams += 1
        return self.streams

    def stream_address(self, stream: int) -> int:
        return stream

    def callers_stream(self, values: Collection[Any]) -> int:
        return 0

    @contextmanager
    def using(self, stream: int) -> Iterator[None]:
        before, self._local.stream = self.on, stream
        try:
            yield
        finally:
            self._local.stream = before

    def wait(self, stream: int, other: int) -> None:
        self.waits.append((stream, other))

    def synchronize(self, stream: int) -> None:
        assert stream
