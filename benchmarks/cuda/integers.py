"""A layer in uint8: its constants, and whether outputs are right to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.device import Device
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from benchmarks.cuda.machine import Machine
from benchmarks.shapes import Layer

__all__ = ["integer_conv", "wrong_integers"]

_MEAN_DIFFERENCE = 256 / 3
_DEVIATION = 60
"""Of two bytes, all equally likely, in absolute value: mean, and about the deviation."""

_ZERO_POINT = 128
_Y_SCALE = 1 / 64


def integer_conv(device: Device, layer: Layer, *, force_direct: bool = False) -> IntegerAdderConv:
    """The layer with random weights."""
    w, scale, bias = _constants(layer)
    epilogue = IntegerEpilogue(1.0, 0, _Y_SCALE, 0, 0.0, 8)
    geometry = ((layer.stride, layer.stride), (1, 1), 1)
    constants = (w, _ZERO_POINT, scale, bias)
    return IntegerAdderConv(device, *constants, epilogue, *geometry, force_direct=force_direct)


def wrong_integers(machine: Machine, layer: Layer, batch: int, outputs: int) -> str | None:
    """What is wrong with some outputs of the kernel, corners among them; None if nothing is.

    They are compared with the arithmetic of QLinearAdderConv, step by step in float32.
    """
    device, pad = machine.device, layer.kernel // 2
    row = layout.padded_channels(layer.channels, "uint8")
    xs = machine.random((batch, layer.size, layer.size, row), "uint8")
    shape = (batch, layer.out, layer.out, layout.padded_channels(layer.filters, "uint8"))
    ys = device.empty(shape, "uint8")
    sizes = ((layer.size, layer.size), (layer.out, layer.out), (pad, pad))
    launch = integer_conv(device, layer).launch(batch, *sizes).with_scratch(device)
    launch.run(device, x=device.pointer(xs), y=device.pointer(ys))
    w, scale, bias = _constants(layer)
    rng = np.random.default_rng(2)
    found = set()
    for n in {0, batch // 2, batch - 1}:
        x = machine.download(xs[n]).astype(np.int32)[..., : layer.channels]
        x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), constant_values=_ZERO_POINT)
        y = machine.download(ys[n])
        last = layer.out - 1
        for h, v in [(0, 0), (last, last), *rng.integers(layer.out, size=(outputs, 2))]:
            m = int(rng.integers(layer.filters))
            window = x[h * layer.stride :, v * layer.stride :][: layer.kernel, : layer.kernel]
            total = np.abs(window - w[m].transpose(1, 2, 0).astype(np.int32)).sum()
            value = np.maximum(np.float32(-total) * scale[m] + bias[m], np.float32(0))
            exact = int(np.clip(np.rint(value / np.float32(_Y_SCALE)), 0, 255))
            if int(y[h, v, m]) != exact:
                return f"output {(n, m, int(h), int(v))} is {int(y[h, v, m])}, not {exact}"
            found.add(exact)
    return None if len(found) > 2 else f"all outputs are among {sorted(found)}: too few to compare"


def _constants(layer: Layer) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
    """Weights, and scale and bias with which the outputs use the range of integers.

    As after batch normalisation: sums lie around the bias, and ReLU clips half of them.
    """
    taps = layer.channels * layer.kernel**2
    shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    w = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    scale = np.full(layer.filters, 1 / (_DEVIATION * math.sqrt(taps)), np.float32)
    return w, scale, (scale * _MEAN_DIFFERENCE * taps).astype(np.float32)
