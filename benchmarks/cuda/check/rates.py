"""Rates of the kernels against the bound."""

from __future__ import annotations

import math
import statistics

import numpy as np

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.variants import TYPES
from benchmarks.cuda.check.results import FailedError
from benchmarks.cuda.launches import prepare
from benchmarks.cuda.machine import Inputs, Machine
from benchmarks.cuda.rounding import MEAN_DIFFERENCE
from benchmarks.cuda.timing import Call, take_turns
from benchmarks.shapes import Layer

__all__ = ["LAYERS", "LEAST_SHARES", "check_rate"]

LAYERS = tuple(Layer(c, c, s, 3, 1) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7)))
"""ResNet-50's 3 x 3 layers."""

LEAST_SHARES = {"float32": 0.6}
"""Of the bound, by type, that each of these layers must reach; others are only told."""

_BATCH = 64
_ROUNDS = 5


def check_rate(machine: Machine, type_: str) -> str:
    """The rate of each layer as a share of the bare inner loop's.

    Raises:
        FailedError: one is below `LEAST_SHARES`.
    """
    assert type_ in TYPES
    bound = machine.bound(type_)
    shares = {layer: _rate(machine, layer, type_) / bound for layer in LAYERS}
    told = ", ".join(f"{layer.channels}: {100 * share:.0f} %" for layer, share in shares.items())
    found = f"3x3 layers by channels, batch {_BATCH}, of {bound / 1e12:.2f} Ttaps/s: {told}"
    least = LEAST_SHARES.get(type_, 0.0)
    if min(shares.values()) < least:
        raise FailedError(f"below {100 * least:.0f} %: {found}")
    return found


def _rate(machine: Machine, layer: Layer, type_: str) -> float:
    """Taps per second."""
    rng = np.random.default_rng(0)
    taps = layer.channels * layer.kernel**2
    w = rng.standard_normal((layer.filters, layer.channels, layer.kernel, layer.kernel), np.float32)
    scale = np.ones(layer.filters, np.float32)
    bias = np.full(layer.filters, MEAN_DIFFERENCE * taps + math.sqrt(taps), np.float32)
    launch, y = prepare(machine.device, layer, _BATCH, w, scale, bias, type_)
    row = layout.padded_channels(layer.channels, type_)
    inputs = Inputs(machine, (_BATCH, layer.size, layer.size, row), type_)

    def call() -> None:
        launch.run(machine.device, x=inputs.next_address(), y=machine.device.pointer(y))

    calls: dict[str, Call] = {"kernel": call}
    seconds = take_turns(calls, machine.kernel_timer, _ROUNDS)["kernel"]
    machine.release()
    return layer.taps * _BATCH / statistics.median(seconds)
