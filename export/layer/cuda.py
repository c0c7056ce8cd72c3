"""An adder layer by the CUDA kernels: float32."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from adder_onnx.export.layer.geometry import Geometry, memory_format
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.gradients import InputGradient

__all__ = ["CudaKernels"]

_TYPE = "float32"
_ALIGNMENT = 16
"""In bytes: what the kernels read at a time."""


class CudaKernels:
    """Implements `adder_onnx.export.layer.selection.Kernels`.

    Weights are packed anew in each call, because every step of a training changes them. The kernels
    take tensors channels last, with rows of whole 16 bytes: a torch tensor that lies so already is
    read, and a result that is to lie so is written, where it is; others are converted.

    Args:
        device: its arrays are torch tensors.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def forward(
        self, x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]
    ) -> Tensor:
        """The layer; see the protocol."""
        filters = weight.shape[0]
        conv = AdderConv(
            self._device,
            weight.detach().contiguous(),
            np.ones(filters, np.float32),
            np.zeros(filters, np.float32),
            (-math.inf, math.inf),
            geometry.stride,
            geometry.dilation,
            geometry.groups,
            _TYPE,
        )
        batch, _, height, width = x.shape
        launch = conv.launch(batch, (height, width), size, geometry.padding)
        return self._run(launch, "y", (batch, filters, *size), memory_format(x), x=x)

    def input_gradient(
        self, x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry
    ) -> Tensor:
        """The gradient of the input; see the protocol."""
        gradient = InputGradient(
            self._device,
            weight.detach().contiguous(),
            geometry.stride,
            geometry.dilation,
            geometry.groups,
        )
        batch, channels, height, width = x.shape
        in_size, out_size = (height, width), (grad_y.shape[2], grad_y.shape[3])
        launch = gradient.launch(batch, in_size, out_size, geometry.padding)
        shape = (batch, channels, height, width)
        return self._run(launch, "grad_x", shape, memory_format(x), x=x, grad_y=grad_y)

    def _run(
        self,
        launch: Launch,
        field: str,
        shape: tuple[int, int, int, int],
        lies: torch.memory_format,
        **inputs: Tensor,
    ) -> Tensor:
        """Runs a kernel on ``inputs``; the result, whose address is ``field``, is of ``shape``."""
        device = self._device
        inside = {name: self._enter(tensor) for name, tensor in inputs.items()}
        addresses = {name: device.pointer(tensor) for name, tensor in inside.items()}
        batch, channels, height, width = shape
        if lies == torch.channels_last and _is_unpadded(channels):
            result: Tensor = device.empty((batch, height, width, channels), _TYPE)
            launch.run(device, **addresses, **{field: device.pointer(result)})
            return result.permute(0, 3, 1, 2)
        padded = device.empty((layout.nhwc_size(shape, _TYPE),), np.uint8)
        launch.run(device, **addresses, **{field: device.pointer(padded)})
        result = device.empty(shape, _TYPE)
        leave = layout.leave(shape, _TYPE, _TYPE)
        leave.run(device, **{"from": device.pointer(padded), "to": device.pointer(result)})
        return result

    def _enter(self, tensor: Tensor) -> Tensor:
        """The same values as the kernels take them."""
        device = self._device
        tensor = tensor.detach()
        if (
            memory_format(tensor) == torch.channels_last
            and _is_unpadded(tensor.shape[1])
            and tensor.data_ptr() % _ALIGNMENT == 0
        ):
            return tensor
        tensor = tensor.contiguous()
        batch, channels, height, width = tensor.shape
        shape = (batch, channels, height, width)
        inside: Tensor = device.empty((layout.nhwc_size(shape, _TYPE),), np.uint8)
        enter = layout.enter(shape, _TYPE, _TYPE)
        enter.run(device, **{"from": device.pointer(tensor), "to": device.pointer(inside)})
        return inside


def _is_unpadded(channels: int) -> bool:
    return layout.padded_channels(channels, _TYPE) == channels
