"""What `AdderConv2d` computes with the native kernels: float32 on a CPU, forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adder_onnx.kernels import cpu
from adder_onnx.kernels.cpu import AdderConv, Program, padded_channels, select_isa

__all__ = ["Geometry", "forward", "input_gradient", "is_native", "without_native_kernels"]

_MAX_ARENA_BYTES = 1 << 22
"""Bound on the size of the kernels' copies of images, unless one image is larger."""


class Geometry(NamedTuple):
    """How a layer's kernel moves over images; pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


_is_off: ContextVar[bool] = ContextVar("_is_off", default=False)


@contextmanager
def without_native_kernels() -> Iterator[None]:
    """Within it PyTorch computes all layers, in this thread: the yardstick for the kernels."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def is_native(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels compute a layer of these."""
    return not _is_off.get() and all(
        t.device.type == "cpu" and t.dtype == torch.float32 for t in (x, weight)
    )


def forward(x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """The layer, in exact arithmetic.

    Args:
        x: (N, C, H, W), float32.
        weight: (M, C / groups, kH, kW), float32.
        geometry: of the layer.
        size: of the output.

    Returns:
        (N, M, *size), float32.
    """
    filters, threads = weight.shape[0], torch.get_num_threads()
    conv = AdderConv(
        _array(weight),
        np.ones(filters, np.float32),
        np.zeros(filters, np.float32),
        -math.inf,
        math.inf,
        geometry.stride,
        geometry.dilation,
        geometry.groups,
        select_isa(),
        "exact",
    )
    batch, channels, height, width = x.shape
    x_floats = height * width * padded_channels(channels)
    y_floats = size[0] * size[1] * padded_channels(filters)
    images = max(1, _MAX_ARENA_BYTES // (x.element_size() * max(1, x_floats + y_floats) * threads))
    program = Program(batch, images)
    program.add_nchw_to_nhwc(0, (batch, channels, height, width), 0, "float32", "float32")
    y_at = min(images, batch) * x_floats
    program.add_adder_conv(conv, batch, (height, width), size, geometry.padding, 0, -1, y_at)
    program.add_nhwc_to_nchw(y_at, (batch, filters, *size), 0, "float32", "float32")
    y = torch.empty((batch, filters, *size))
    arena = np.empty(program.arena_size(threads), np.float32)
    program.run(arena, [_array(x)], [y.numpy()], threads)
    return y


def input_gradient(x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry) -> Tensor:
    """The gradient with respect to the input, of the shape of ``x``; all are float32."""
    grad_x = torch.empty(x.shape)
    arrays = (_array(x), _array(weight), _array(grad_y), grad_x.numpy())
    cpu.input_gradient(*arrays, *geometry, select_isa(), torch.get_num_threads())
    return grad_x


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array
