"""One layer as a launch of our kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from benchmarks.cuda.integers import integer_conv
from benchmarks.shapes import Layer

__all__ = ["prepare", "prepare_integers"]


def prepare(
    device: Device,
    layer: Layer,
    batch: int,
    w: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    type_: str,
    *,
    force_direct: bool = False,
) -> tuple[Launch, Any]:
    """The launch, with a ReLU, whose fields ``x`` and ``y`` are to be given; an array for ``y``.

    Args:
        device: where.
        layer: which.
        batch: images at a time.
        w: (filters, channels, kernel, kernel).
        scale: (filters,).
        bias: (filters,).
        type_: ``float32`` or ``float16``.
        force_direct: one thread for each output.
    """
    conv = AdderConv(
        device,
        w.astype(type_),
        scale,
        bias,
        (0.0, float("inf")),
        (layer.stride, layer.stride),
        (1, 1),
        1,
        type_,
        force_direct=force_direct,
    )
    return _launch(device, conv, layer, batch, type_)


def prepare_integers(device: Device, layer: Layer, batch: int) -> tuple[Launch, Any]:
    """The same in uint8, with random weights."""
    return _launch(device, integer_conv(device, layer), layer, batch, "uint8")


def _launch(
    device: Device, conv: AdderConv | IntegerAdderConv, layer: Layer, batch: int, type_: str
) -> tuple[Launch, Any]:
    shape = (batch, layer.out, layer.out, layout.padded_channels(layer.filters, type_))
    sizes = ((layer.size, layer.size), (layer.out, layer.out))
    launch = conv.launch(batch, *sizes, (layer.kernel // 2, layer.kernel // 2))
    return launch.with_scratch(device), device.empty(shape, type_)
