"""One layer as a launch of our kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from benchmarks.cuda.integers import integer_conv
from benchmarks.cuda.rounding import MEAN_DIFFERENCE
from benchmarks.shapes import Layer

__all__ = ["float_conv", "prepare", "random_conv"]


def float_conv(
    device: Device,
    layer: Layer,
    w: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    type_: str,
    *,
    force_direct: bool = False,
) -> AdderConv:
    """The layer with a ReLU.

    Args:
        device: where.
        layer: which.
        w: (filters, channels, kernel, kernel).
        scale: (filters,).
        bias: (filters,).
        type_: ``float32`` or ``float16``.
        force_direct: one thread for each output.
    """
    return AdderConv(
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


def random_conv(
    device: Device, layer: Layer, type_: str, *, force_direct: bool = False
) -> AdderConv | IntegerAdderConv:
    """The layer with random filters, the same each time, for inputs of `Machine.random`.

    ReLU leaves more than half of the outputs.
    """
    if type_ == "uint8":
        return integer_conv(device, layer, force_direct=force_direct)
    taps = layer.channels * layer.kernel**2
    shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    scale = np.ones(layer.filters, np.float32)
    bias = np.full(layer.filters, MEAN_DIFFERENCE * taps + math.sqrt(taps), np.float32)
    return float_conv(device, layer, w, scale, bias, type_, force_direct=force_direct)


def prepare(
    device: Device,
    conv: AdderConv | IntegerAdderConv,
    layer: Layer,
    batch: int,
    type_: str,
    grid: Any = None,
) -> tuple[Launch, Any]:
    """The launch, whose fields ``x`` and ``y`` are to be given, and an array for ``y``.

    Args:
        device: where.
        conv: of the layer.
        layer: which.
        batch: images at a time.
        type_: of x and y.
        grid: of `grids`, what to take; None for the one that is selected.
    """
    shape = (batch, layer.out, layer.out, layout.padded_channels(layer.filters, type_))
    sizes = ((layer.size, layer.size), (layer.out, layer.out))
    pads = (layer.kernel // 2, layer.kernel // 2)
    launch = conv.launch(batch, *sizes, pads, force_grid=grid)
    return launch.with_scratch(device), device.empty(shape, type_)
