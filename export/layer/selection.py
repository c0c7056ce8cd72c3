"""Which kernels compute an adder layer: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor

from adder_onnx.export.layer import cpu
from adder_onnx.export.layer.geometry import Geometry
from adder_onnx.export.layer.torch_gpu import cuda_kernels

__all__ = ["Kernels", "native_kernels", "without_native_kernels"]


class Kernels(Protocol):
    """Kernels for float32 tensors on one device.

    Tensors may lie in memory as they like; results are contiguous or channels last.
    """

    def forward(
        self, x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]
    ) -> Tensor:
        """The layer.

        Args:
            x: (N, C, H, W), float32.
            weight: (M, C / groups, kH, kW), float32.
            geometry: of the layer.
            size: of the output.

        Returns:
            (N, M, *size), float32.
        """

    def input_gradient(
        self, x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry
    ) -> Tensor:
        """Equation 7 of the paper, of the shape of ``x``; all are float32."""


_is_off: ContextVar[bool] = ContextVar("_is_off", default=False)


@contextmanager
def without_native_kernels() -> Iterator[None]:
    """Within it PyTorch computes all layers, in this thread: the yardstick for the kernels."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def native_kernels(x: Tensor, weight: Tensor) -> Kernels | None:
    """What computes a layer of these; None where it is PyTorch."""
    if _is_off.get() or not x.dtype == weight.dtype == torch.float32 or x.device != weight.device:
        return None
    return _kernels_of(x.device)


def _kernels_of(device: torch.device) -> Kernels | None:
    if device.type == "cpu":
        return cpu
    return cuda_kernels(device.index) if device.type == "cuda" else None
