"""One GPU as the runtime uses it, through CuPy."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DeviceError
from adder_onnx.kernels.cuda.compiler.nvrtc import compiler_options, source
from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["CupyGpu"]

_logger = logging.getLogger(__name__)


class CupyGpu:
    """A `Gpu` by CuPy. Memory is that of CuPy's pool, which keeps a list for each stream."""

    def __init__(self, number: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self._device = cupy.cuda.Device(number)
        self._number = number
        self.name = f"cuda:{number}"
        self.ort_device = ("cuda", number)
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        with self._memory_errors():
            return self._cupy.empty(shape, dtype)

    def upload(self, array: NDArray[Any]) -> Any:
        with self._memory_errors():
            return self._cupy.asarray(array)

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        # CuPy passes a NumPy array of one element by value.
        self._function(kernel)(grid, (kernel.threads,), (args,))

    def finish(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()

    def owns(self, value: Any) -> bool:
        return isinstance(value, self._cupy.ndarray)

    def adopt(self, value: Any) -> Any:
        number = int(value.__dlpack_device__()[1])
        if number != self._number:
            raise ValueError(f"it is on cuda:{number}, and the session runs on {self.name}")
        return value if self.owns(value) else self._cupy.from_dlpack(value)

    def contiguous(self, array: Any) -> Any:
        with self._memory_errors():
            return self._cupy.ascontiguousarray(array)

    def download(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = self._cupy.asnumpy(array)
        return values

    def wrap(self, address: int, shape: Sequence[int], dtype: Any, owner: object) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self._cupy.cuda.UnownedMemory(address, size, owner, self._number)
        return self._cupy.ndarray(shape, dtype, self._cupy.cuda.MemoryPointer(memory, 0))

    def copy(self, source: Any, destination: Any) -> None:
        self._cupy.copyto(destination, source)

    def to_torch(self, array: Any) -> Any:
        return sys.modules["torch"].from_dlpack(array)

    def new_stream(self) -> Any:
        with self._device:
            return self._cupy.cuda.Stream(non_blocking=True)

    def stream_address(self, stream: Any) -> int:
        return int(stream.ptr)

    def callers_stream(self, values: Iterable[Any]) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and any(isinstance(v, torch.Tensor) and v.is_cuda for v in values):
            stream = torch.cuda.current_stream(self._number).cuda_stream
            return self._cupy.cuda.ExternalStream(stream, self._number)
        with self._device:
            return self._cupy.cuda.get_current_stream()

    @contextmanager
    def using(self, stream: Any) -> Iterator[None]:
        with self._device, stream:
            yield

    def wait(self, stream: Any, other: Any) -> None:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(other)
            stream.wait_event(event)

    def synchronize(self, stream: Any) -> None:
        stream.synchronize()

    def _function(self, kernel: Kernel) -> Any:
        with self._lock:
            if kernel.expression not in self._functions:
                self._functions[kernel.expression] = self._compile(kernel.expression)
            return self._functions[kernel.expression]

    def _compile(self, expression: str) -> Any:
        start = time.perf_counter()
        _logger.info("compiling %s for %s, or taking it from CuPy's cache", expression, self.name)
        module = self._cupy.RawModule(
            code=source(), options=compiler_options(), name_expressions=(expression,)
        )
        function = module.get_function(expression)
        _logger.info("%s is ready after %.1f s", expression, time.perf_counter() - start)
        return function

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise DeviceError(
                f"{self.name} is out of memory ({' '.join(str(error).split())}): use a smaller "
                "batch, or free what else is on the GPU"
            ) from error
