"""Stands in for a GPU as PyTorch uses it: torch tensors on the CPU, between guard zones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import Kernel
from tests.cuda_on_cpu.device import CpuDevice

__all__ = ["TorchOnCpu"]


class TorchOnCpu(CpuDevice):
    """A `CpuDevice` whose arrays are torch tensors.

    Kernels read tensors that torch has made through copies of their memory between guard zones,
    and may not write them.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__(backwards=backwards)
        self._made: dict[int, Tensor] = {}
        self._copies: list[NDArray[Any]] = []
        self._is_current = False

    @contextmanager
    def current(self) -> Iterator[None]:
        assert not self._is_current
        self._is_current = True
        yield
        self._is_current = False

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        assert self._is_current, "a kernel is launched on whatever stream CuPy has"
        super().launch(kernel, grid, args)

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        return self._tensor(super().empty(shape, dtype))

    def upload(self, array: NDArray[Any]) -> Any:
        result = self.empty(array.shape, array.dtype)
        result.copy_(torch.from_numpy(array))
        return result

    def pointer(self, array: Any) -> int:
        """The address; of a tensor that torch has made, that of a copy of its memory."""
        if array.data_ptr() in self._made:
            return int(array.data_ptr())
        flat = array.detach().as_strided((array.numel(),), (1,))
        copy = CpuDevice.empty(self, flat.shape, np.float32)
        copy[...] = flat.numpy()
        self._copies.append(copy)
        return copy.ctypes.data

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        self._made[tensor.data_ptr()] = tensor
        return tensor
