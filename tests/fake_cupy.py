"""A CuPy without a GPU, for what `CupyGpu` does with the real one: devices, streams, late copies.

Copies between host and device are done when somebody waits for them, as late as CUDA may do them.
Every call can be made to fail.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["FakeCupy"]


class CudaError(RuntimeError):
    """As CuPy's CUDARuntimeError and CUDADriverError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{status}:\n what CUDA says")
        self.status = status


class CompileError(Exception):
    """As CuPy's CompileException."""


class OutOfMemoryError(MemoryError):
    """As CuPy's: it has no status."""


class Array:
    """An array on the device: NumPy's memory, which nobody may use as NumPy's."""

    def __init__(self, values: np.ndarray) -> None:  # type: ignore[type-arg]
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.data = SimpleNamespace(ptr=values.ctypes.data)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class FakeCupy(ModuleType):
    """The module.

    Attributes:
        failures: statuses by the name of the call that fails with them.
        calls: names of calls, and what tells them apart.
        current: the current device's number.
        modules: the C++ names that each module was compiled with.
        cubins: modules that were loaded as they are.
        compute_capability: of all devices, without the point.
        cache_folder: where compiled kernels are kept.
        capture_modes: of the captures that were begun.
        capturing: addresses of streams that are being captured.
        pinned: bytes of pinned memory that were taken.
    """

    def __init__(self, devices: int = 2) -> None:
        super().__init__("cupy")
        self.failures: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.modules: list[tuple[str, ...]] = []
        self.cubins: list[bytes] = []
        self.compute_capability = "90"
        self.cache_folder = ""
        self.capture_modes: list[object] = []
        self.capturing: set[int] = set()
        self.pinned = 0
        self.current = 0
        self._local = threading.local()
        self._queues: dict[int, list[Callable[[], object]]] = {}
        self._lock = threading.RLock()
        self.ndarray = Array
        fake = self

        def call(name: str, *details: Any) -> None:
            fake.calls.append((name, *details))
            status = fake.failures.get(name)
            if name == "empty" and status == 2:
                raise OutOfMemoryError("Out of memory allocating 1,024 bytes")
            if status is not None:
                raise CudaError(status)

        class Stream:
            def __init__(self, non_blocking: bool = False) -> None:
                call("streamCreate", fake.current)
                self._set(1000 + 16 * len(fake._queues), fake.current)

            def _set(self, ptr: int, device_id: int) -> None:
                self.ptr, self.device_id = ptr, device_id
                fake._queues.setdefault(ptr, [])

            @classmethod
            def from_external(cls, foreign: Any) -> Stream:
                version, ptr = foreign.__cuda_stream__()
                assert version == 0
                stream = cls.__new__(cls)
                stream._set(ptr, fake.current)
                return stream

            def __enter__(self) -> Stream:
                assert self.device_id in (-1, fake.current), "the stream is another device's"
                fake._streams().append(self)
                return self

            def __exit__(self, *_: object) -> None:
                assert fake._streams().pop() is self

            def synchronize(self) -> None:
                call("streamSynchronize", self.ptr)
                fake.do_all(self.ptr)

            def wait_event(self, event: Any) -> None:
                call("streamWaitEvent", self.ptr)

            def is_capturing(self) -> bool:
                call("streamIsCapturing", self.ptr)
                return self.ptr in fake.capturing

            def begin_capture(self, mode: object = None) -> None:
                call("streamBeginCapture")
                fake.capture_modes.append(mode)
                fake.capturing.add(self.ptr)

            def end_capture(self) -> Any:
                fake.capturing.discard(self.ptr)
                call("streamEndCapture")
                return SimpleNamespace(launch=lambda: call("graphLaunch", fake._streams()[-1].ptr))

        class Event:
            def __init__(self, disable_timing: bool = False) -> None:
                call("eventCreate", fake.current)
                self._todo: list[Callable[[], object]] = []
                self._ptr = 0

            @property
            def done(self) -> bool:
                return not self._todo or self._todo[-1] not in fake._queues[self._ptr]

            def record(self, stream: Any) -> None:
                call("eventRecord", stream.ptr)
                self._ptr = stream.ptr
                self._todo = list(fake._queues[stream.ptr])

            def synchronize(self) -> None:
                call("eventSynchronize")
                if not self.done:
                    fake.do_all(self._ptr, self._todo[-1])

        null = Stream.__new__(Stream)
        null._set(0, -1)
        self.null = null

        def get_device() -> int:
            call("getDevice")
            return fake.current

        def set_device(number: int) -> None:
            call("setDevice", number)
            fake.current = number

        def memcpy(to: int, from_: int, size: int, kind: int, stream: int) -> None:
            call("memcpyAsync", kind, size)
            with fake._lock:
                fake._queues[stream].append(lambda: ctypes.memmove(to, from_, size))

        def pinned(size: int) -> Any:
            call("hostAlloc", size)
            fake.pinned += size
            return bytearray(size)

        class RawModule:
            def __init__(self, code: str, options: Any, name_expressions: tuple[str, ...]) -> None:
                fake.modules.append(name_expressions)

            def get_function(self, name: str) -> Any:
                if "compile" in fake.failures:
                    raise CompileError("kernels.cu(1): error:\n expected a ;")
                call("moduleLoad", fake.current)
                return lambda grid, block, args: call("launch", name, grid, block)

        runtime = SimpleNamespace(
            CUDARuntimeError=CudaError,
            deviceSynchronize=lambda: call("deviceSynchronize"),
            getDevice=get_device,
            memcpyAsync=memcpy,
            memsetAsync=lambda address, value, size, stream: call("memsetAsync"),
            memcpyDeviceToHost=2,
            memcpyHostToDevice=1,
            setDevice=set_device,
            streamCaptureModeRelaxed="relaxed",
        )

        class Device:
            def __init__(self, number: int | None = None) -> None:
                call("deviceGetAttribute")
                self.attributes = {"MultiProcessorCount": 132}
                self.compute_capability = fake.compute_capability

        class Module:
            def load(self, cubin: bytes) -> None:
                call("moduleLoad", fake.current)
                fake.cubins.append(cubin)

            def get_function(self, name: str) -> Any:
                return lambda grid, block, args: call("launch", name, grid, block)

        self.RawModule = RawModule

        self.cuda = SimpleNamespace(
            Device=Device,
            Event=Event,
            Stream=Stream,
            alloc_pinned_memory=pinned,
            compiler=SimpleNamespace(
                CompileException=CompileError, get_cache_dir=lambda: fake.cache_folder
            ),
            driver=SimpleNamespace(CUDADriverError=CudaError),
            function=SimpleNamespace(Module=Module),
            get_current_stream=lambda: fake._streams()[-1],
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=runtime,
        )

        def empty(shape: Any, dtype: Any) -> Array:
            call("empty")
            return Array(np.full(shape, 7, dtype))

        self.empty = empty
        self.ascontiguousarray = lambda array: array

        def copyto(destination: Array, source: Array) -> None:
            call("copyto")
            destination.values[...] = source.values

        self.copyto = copyto

        def from_dlpack(value: Any) -> Array:
            call("from_dlpack")
            return Array(value.values)

        self.from_dlpack = from_dlpack
        self.get_default_memory_pool = lambda: SimpleNamespace(
            free_all_blocks=lambda stream: call("free_all_blocks", fake.current)
        )

    def do_all(self, ptr: int, last: object = None) -> None:
        """Does what is queued on a stream, up to ``last`` where it is given."""
        with self._lock:
            queue = self._queues[ptr]
            if last is not None and last not in queue:
                return  # another thread has waited for it
            end = len(queue) if last is None else queue.index(last) + 1  # type: ignore[arg-type]
            for work in queue[:end]:
                work()
            del queue[:end]

    def _streams(self) -> list[Any]:
        if not hasattr(self._local, "streams"):
            self._local.streams = [self.null]
        streams: list[Any] = self._local.streams
        return streams
