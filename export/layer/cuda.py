"""An adder layer by the CUDA kernels: float32."""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from adder_onnx.export.layer.geometry import Geometry, memory_format
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.gradients import InputGradient
from adder_onnx.runtime.lru import LruCache

__all__ = ["CudaKernels", "TorchDevice"]

_TYPE = "float32"
_ALIGNMENT = 16
"""In bytes: what the kernels read at a time."""

_CACHED_SHAPES = 256

_Shape = tuple[int, int, int, int]


class TorchDevice(Device, Protocol):
    """A device whose arrays are torch tensors."""

    def current(self) -> AbstractContextManager[None]:
        """Makes it current, and what is launched within go to torch's current stream of it."""


class CudaKernels:
    """Implements `adder_onnx.export.layer.selection.Kernels`.

    Weights are packed anew in each call, because every step of a training changes them. The kernels
    take tensors channels last, with rows of whole 16 bytes: a torch tensor that lies so already is
    read, and a result that is to lie so is written, where it is; others are converted.

    What depends on shapes alone is kept for those used last.

    Args:
        device: where.
    """

    def __init__(self, device: TorchDevice) -> None:
        self._device = device
        self._convs: LruCache[_ConvKey, tuple[AdderConv, Launch]] = LruCache(_CACHED_SHAPES)
        self._gradients: LruCache[_GradientKey, tuple[InputGradient, Launch]] = LruCache(
            _CACHED_SHAPES
        )

    def forward(
        self, x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]
    ) -> Tensor:
        """The layer; see the protocol."""
        with self._device.current():
            key = _ConvKey(_shape(x), _shape(weight), size, geometry)
            conv, launch = self._convs.get_or_make(key, self._make_conv)
            weights = conv.pack(self._device, weight.detach().contiguous())
            return self._run(
                launch.with_scratch(self._device),
                "y",
                (key.x[0], key.weight[0], *size),
                memory_format(x),
                {"x": x},
                weights=self._device.pointer(weights),
            )

    def input_gradient(
        self, x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry
    ) -> Tensor:
        """The gradient of the input; see the protocol."""
        with self._device.current():
            key = _GradientKey(_shape(x), _shape(weight), _shape(grad_y), geometry)
            gradient, launch = self._gradients.get_or_make(key, _make_gradient)
            weights = gradient.pack(self._device, weight.detach().contiguous())
            return self._run(
                launch,
                "grad_x",
                key.x,
                memory_format(x),
                {"x": x, "grad_y": grad_y},
                weights=self._device.pointer(weights),
            )

    def _make_conv(self, key: _ConvKey) -> tuple[AdderConv, Launch]:
        filters = key.weight[0]
        stride, padding, dilation, groups = key.geometry
        conv = AdderConv(
            self._device,
            key.weight,
            np.ones(filters, np.float32),
            np.zeros(filters, np.float32),
            (-math.inf, math.inf),
            stride,
            dilation,
            groups,
            _TYPE,
        )
        return conv, conv.launch(key.x[0], key.x[2:], key.size, padding)

    def _run(
        self,
        launch: Launch,
        field: str,
        shape: _Shape,
        lies: torch.memory_format,
        images: dict[str, Tensor],
        **addresses: int,
    ) -> Tensor:
        """Runs a kernel on ``images``; the result, whose address is ``field``, is of ``shape``."""
        device = self._device
        inside = {name: self._enter(image) for name, image in images.items()}
        addresses |= {name: device.pointer(image) for name, image in inside.items()}
        conversion = _conversion(shape)
        if lies == torch.channels_last and conversion.is_unpadded:
            batch, channels, height, width = shape
            result: Tensor = device.empty((batch, height, width, channels), _TYPE)
            launch.run(device, **addresses, **{field: device.pointer(result)})
            return result.permute(0, 3, 1, 2)
        padded = device.empty((conversion.size,), np.uint8)
        launch.run(device, **addresses, **{field: device.pointer(padded)})
        result = device.empty(shape, _TYPE)
        conversion.leave.run(
            device, **{"from": device.pointer(padded), "to": device.pointer(result)}
        )
        return result

    def _enter(self, image: Tensor) -> Tensor:
        """The same values as the kernels take them."""
        image, device = image.detach(), self._device
        conversion = _conversion(_shape(image))
        if (
            memory_format(image) == torch.channels_last
            and conversion.is_unpadded
            and image.data_ptr() % _ALIGNMENT == 0
        ):
            return image
        image = image.contiguous()
        inside: Tensor = device.empty((conversion.size,), np.uint8)
        conversion.enter.run(
            device, **{"from": device.pointer(image), "to": device.pointer(inside)}
        )
        return inside


class _ConvKey(NamedTuple):
    """What a launch forwards depends on."""

    x: _Shape
    weight: _Shape
    size: tuple[int, int]
    geometry: Geometry


class _GradientKey(NamedTuple):
    """What a launch backwards depends on."""

    x: _Shape
    weight: _Shape
    grad_y: _Shape
    geometry: Geometry


def _make_gradient(key: _GradientKey) -> tuple[InputGradient, Launch]:
    stride, padding, dilation, groups = key.geometry
    gradient = InputGradient(key.weight, stride, dilation, groups)
    return gradient, gradient.launch(key.x[0], key.x[2:], key.grad_y[2:], padding)


class _Conversion(NamedTuple):
    """Between images of one shape, contiguous, and what the kernels take.

    Attributes:
        size: of the latter, in bytes.
        is_unpadded: whether they are what torch calls channels last.
        enter: the launch from the former to the latter.
        leave: and back.
    """

    size: int
    is_unpadded: bool
    enter: Launch
    leave: Launch


@functools.lru_cache(_CACHED_SHAPES)
def _conversion(shape: _Shape) -> _Conversion:
    return _Conversion(
        layout.nhwc_size(shape, _TYPE),
        layout.padded_channels(shape[1], _TYPE) == shape[1],
        layout.enter(shape, _TYPE, _TYPE),
        layout.leave(shape, _TYPE, _TYPE),
    )


def _shape(tensor: Tensor) -> _Shape:
    first, second, third, fourth = tensor.shape
    return (first, second, third, fourth)
