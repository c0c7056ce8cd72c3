"""One GPU as PyTorch uses it: its memory, its current stream, and our kernels launched there."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adder_onnx.errors import AdderError
from adder_onnx.export.layer.cuda import CudaKernels
from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import Kernel
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.devices import check_cupy

__all__ = ["TorchGpu", "cuda_kernels"]

_logger = logging.getLogger(__name__)


class TorchGpu:
    """Implements `adder_onnx.export.layer.cuda.TorchDevice`.

    All is in the order of torch's current stream of this device: memory comes from torch's
    allocator, which gives it back to that stream, and CuPy launches kernels on it.

    Args:
        number: of the GPU, as torch counts.
        gpu: the same.
    """

    def __init__(self, number: int, gpu: CupyGpu) -> None:
        import cupy

        self._cupy: Any = cupy
        self._device = torch.device("cuda", number)
        self._gpu = gpu
        self.multiprocessors = gpu.multiprocessors
        self.target = gpu.target
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: Any) -> Tensor:
        return torch.empty(tuple(shape), dtype=_torch_type(dtype), device=self._device)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Layers upload constants only: what has been uploaded stays, for all streams.

        A copy in each step would wait for the stream, and could not be captured in a CUDA graph.
        """
        key = (array.dtype.str, array.shape, array.tobytes())
        with self._lock:
            if key not in self._constants:
                self._constants[key] = torch.from_numpy(array).to(self._device)
                self.finish()
            return self._constants[key]

    def clear(self, address: int, size: int) -> None:
        self._gpu.clear(address, size)

    def pointer(self, array: Tensor) -> int:
        return array.data_ptr()

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._gpu.using(self._cupy.cuda.Stream.from_external(self._stream())):
            yield

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        self._gpu.launch(kernel, grid, args)

    def finish(self) -> None:
        self._stream().synchronize()

    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self._device)


@functools.cache
def _torch_type(dtype: Any) -> torch.dtype:
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


@functools.cache
def cuda_kernels(number: int) -> CudaKernels | None:
    """The kernels on a GPU; None where they do not run, with a warning when first asked for."""
    try:
        check_cupy(number)
    except AdderError as error:
        _logger.warning(
            "adder layers on cuda:%d are computed by PyTorch's operators, which is slow: %s",
            number,
            error,
        )
        return None
    return CudaKernels(TorchGpu(number, CupyGpu(number)))
