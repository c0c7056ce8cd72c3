"""An adder layer by the native kernels of a CPU: float32."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adder_onnx.export.layer.geometry import Geometry
from adder_onnx.kernels import cpu
from adder_onnx.kernels.cpu import AdderConv, Program, padded_channels, select_isa

__all__ = ["forward", "input_gradient"]

_MAX_ARENA_BYTES = 1 << 22
"""Bound on the size of the kernels' copies of images, unless one image is larger."""


def forward(x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """The layer, in exact arithmetic; see `adder_onnx.export.layer.selection.Kernels`."""
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
    """The gradient of the input; see `adder_onnx.export.layer.selection.Kernels`."""
    grad_x = torch.empty(x.shape)
    arrays = (_array(x), _array(weight), _array(grad_y), grad_x.numpy())
    cpu.input_gradient(*arrays, *geometry, select_isa(), torch.get_num_threads())
    return grad_x


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array
