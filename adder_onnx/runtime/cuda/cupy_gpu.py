"""One GPU as the runtime uses it, through CuPy."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DeviceError
from adder_onnx.kernels.cuda.compiler.nvrtc import compile_target
from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import Kernel
from adder_onnx.runtime.arrays import is_on_gpu
from adder_onnx.runtime.cuda.errors import cuda_failure
from adder_onnx.runtime.cuda.kernels import kernels_of
from adder_onnx.runtime.cuda.staging import staging_of

__all__ = ["CupyGpu"]

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_CAPTURE_IMPLICIT = 906  # of the legacy stream, while any other is being captured


class CupyGpu:
    """A `Gpu` by CuPy. Memory is that of CuPy's pool, which keeps a list for each stream."""

    def __init__(self, number: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self._number = number
        self.name = f"cuda:{number}"
        self.ort_device = ("cuda", number)
        self._kernels = kernels_of(number)
        self._staging = staging_of(number)
        self._last = threading.local()
        self._errors = (
            cupy.cuda.runtime.CUDARuntimeError,
            cupy.cuda.driver.CUDADriverError,
            cupy.cuda.memory.OutOfMemoryError,
        )
        with self._failing("asking what it is"):
            device = cupy.cuda.Device(number)
            self.multiprocessors = int(device.attributes["MultiProcessorCount"])
            self.target = compile_target(int(device.compute_capability))

    def prepare(self, kernels: Iterable[Kernel]) -> None:
        with self._failing("loading kernels"), self._current():
            self._kernels.prepare(kernels)

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        with self._failing("taking memory"):
            return self._cupy.empty(shape, dtype)

    def upload(self, array: NDArray[Any]) -> Any:
        result = self.empty(array.shape, array.dtype)
        with self._failing("copying an array to it"):
            stream = self._cupy.cuda.get_current_stream()
            self._staging.upload(np.ascontiguousarray(array), self.pointer(result), stream)
        return result

    def clear(self, address: int, size: int) -> None:
        with self._failing("clearing memory"):
            stream = self._cupy.cuda.get_current_stream()
            self._cupy.cuda.runtime.memsetAsync(address, 0, size, stream.ptr)

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        self._last.kernel = kernel.expression
        try:
            # CuPy passes a NumPy array of one element by value.
            self._kernels.function(kernel)(grid, (kernel.threads,), (args,))
        except self._errors as error:
            doing = f"starting {kernel.expression} with {' x '.join(map(str, grid))} blocks"
            raise self._failure(error, doing) from error

    def finish(self) -> None:
        with self._failing(self._waiting()):
            self._cupy.cuda.get_current_stream().synchronize()

    def owns(self, value: Any) -> bool:
        return isinstance(value, self._cupy.ndarray)

    def adopt(self, value: Any) -> Any:
        number = int(value.__dlpack_device__()[1])
        if number != self._number:
            raise ValueError(f"it is on cuda:{number}, and the session runs on {self.name}")
        if self.owns(value):
            return value
        with self._failing("taking over an array"):
            try:
                return self._cupy.from_dlpack(value)
            except RuntimeError:
                # Whatever library says so: where the device is lost, that is the reason.
                self._cupy.cuda.runtime.deviceSynchronize()
                raise

    def contiguous(self, array: Any) -> Any:
        with self._failing("copying an array"):
            return self._cupy.ascontiguousarray(array)

    def download(self, array: Any) -> NDArray[Any]:
        source = self.contiguous(array)
        result: NDArray[Any] = np.empty(source.shape, source.dtype)
        with self._failing(self._waiting()):
            stream = self._cupy.cuda.get_current_stream()
            self._staging.download(self.pointer(source), result, stream)
        return result

    def wrap(self, address: int, shape: Sequence[int], dtype: Any, owner: object) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self._cupy.cuda.UnownedMemory(address, size, owner, self._number)
        return self._cupy.ndarray(shape, dtype, self._cupy.cuda.MemoryPointer(memory, 0))

    def copy(self, source: Any, destination: Any) -> None:
        with self._failing("copying an array"):
            self._cupy.copyto(destination, source)

    def free_unused(self, stream: Any = None) -> None:
        with self._failing("giving back memory"), self._current():
            self._cupy.get_default_memory_pool().free_all_blocks(stream=stream)

    def to_torch(self, array: Any) -> Any:
        with self._failing("giving an array to torch"):
            return sys.modules["torch"].from_dlpack(array)

    def new_stream(self) -> Any:
        with self._failing("making a stream"), self._current():
            return self._cupy.cuda.Stream(non_blocking=True)

    def stream_address(self, stream: Any) -> int:
        return int(stream.ptr)

    def callers_stream(self, values: Collection[Any]) -> Any:
        with self._failing("looking at the caller's stream"), self._current():
            torch = sys.modules.get("torch")
            on_gpu = [value for value in values if is_on_gpu(value)]
            tensors = [v for v in on_gpu if torch is not None and isinstance(v, torch.Tensor)]
            own = stream = self._cupy.cuda.get_current_stream()
            if torch is not None and tensors:
                foreign = _Foreign(torch.cuda.current_stream(self._number).cuda_stream)
                stream = self._cupy.cuda.Stream.from_external(foreign)
            if self._is_capturing(stream):
                raise DeviceError(
                    f"the caller's stream on {self.name} is being captured into a CUDA graph, "
                    "which a run cannot be part of: run the session outside of the capture (it "
                    "makes graphs of its own)"
                )
        if 0 < len(tensors) < len(on_gpu):
            self.wait(stream, own)
        return stream

    @contextmanager
    def using(self, stream: Any) -> Iterator[None]:
        with self._current(), stream:
            yield

    def wait(self, stream: Any, other: Any) -> None:
        with self._failing("letting a stream wait for another"), self._current():
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(other)
            stream.wait_event(event)

    def synchronize(self, stream: Any) -> None:
        with self._failing(self._waiting()), self._current():
            stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Any:
        with self._failing("capturing a graph"):
            stream = self._cupy.cuda.get_current_stream()
            # What happens meanwhile on other threads, or by the garbage collector, may call
            # anything of CUDA.
            stream.begin_capture(self._cupy.cuda.runtime.streamCaptureModeRelaxed)
            try:
                work()
            except BaseException:
                with contextlib.suppress(*self._errors):  # it may have ended the capture
                    stream.end_capture()
                raise
            return stream.end_capture()

    def replay(self, graph: Any) -> None:
        self._last.kernel = "a chain's graph"
        with self._failing("starting a chain's graph"):
            graph.launch()

    def _is_capturing(self, stream: Any) -> bool:
        try:
            return bool(stream.is_capturing())
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status == _CAPTURE_IMPLICIT:
                return True
            raise

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Makes this device current; afterwards the one that was, whoever made it so."""
        runtime = self._cupy.cuda.runtime
        with self._failing("making it current"):
            before = runtime.getDevice()
            if before != self._number:
                runtime.setDevice(self._number)
        try:
            yield
        finally:
            with self._failing("making another device current"):
                # onnxruntime, too, makes devices current.
                if runtime.getDevice() != before:
                    runtime.setDevice(before)

    def _waiting(self) -> str:
        last = getattr(self._last, "kernel", None)
        return "waiting for it" + (f", the last kernel started being {last}" if last else "")

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise self._failure(error, doing) from error

    def _failure(self, error: Any, doing: str) -> DeviceError:
        status = getattr(error, "status", _OUT_OF_MEMORY)  # CuPy's OutOfMemoryError has none
        return cuda_failure(self.name, doing, status, str(error))


class _Foreign:
    """A stream of another library, in the CUDA stream protocol."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self._address)
