"""Rates of the kernels against the bound."""

from __future__ import annotations

import statistics

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.selection import select_distances
from benchmarks.cuda.check.results import FailedError
from benchmarks.cuda.launches import prepare, random_conv
from benchmarks.cuda.machine import Inputs, Machine, SessionMachine
from benchmarks.cuda.timing import Call, take_turns
from benchmarks.shapes import Layer

__all__ = ["LAYERS", "LEAST_SHARES", "check_distances", "check_rate"]

LAYERS = tuple(Layer(c, c, s, 3, 1) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7)))
"""ResNet-50's 3 x 3 layers."""

LEAST_SHARES = {"float32": 0.6, "uint8": 0.5}
"""Of the bound, by type, that each of these layers must reach; others are only told."""

_BATCH = 64
_ROUNDS = 5
_CLEARLY_FASTER = 1.05


def check_rate(machine: Machine, type_: str) -> str:
    """The rate of each layer as a share of the bare inner loop's.

    Raises:
        FailedError: one is below `LEAST_SHARES`.
    """
    bound = machine.bound(type_)
    shares = {layer: _rate(machine, layer, type_) / bound for layer in LAYERS}
    told = ", ".join(f"{layer.channels}: {100 * share:.0f} %" for layer, share in shares.items())
    found = f"3x3 layers by channels, batch {_BATCH}, of {bound / 1e12:.2f} Ttaps/s: {told}"
    least = LEAST_SHARES.get(type_, 0.0)
    if min(shares.values()) < least:
        raise FailedError(f"below {100 * least:.0f} %: {found}")
    return found


def check_distances(machine: SessionMachine) -> str:
    """Whether differences of uint8 are added up in the fastest way; selection.py chooses it.

    Raises:
        FailedError: another one is faster.
    """
    rates = machine.distances()
    chosen = select_distances(machine.gpu.target)
    told = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in rates.items())
    found = f"{chosen} of {told} Ttaps/s"
    if max(rates.values()) > _CLEARLY_FASTER * rates[chosen]:
        raise FailedError(f"{found}: another way is faster")
    return found


def _rate(machine: Machine, layer: Layer, type_: str) -> float:
    """Taps per second."""
    conv = random_conv(machine.device, layer, type_)
    launch, y = prepare(machine.device, conv, layer, _BATCH, type_)
    row = layout.padded_channels(layer.channels, type_)
    inputs = Inputs(machine, (_BATCH, layer.size, layer.size, row), type_)

    def call() -> None:
        launch.run(machine.device, x=inputs.next_address(), y=machine.device.pointer(y))

    calls: dict[str, Call] = {"kernel": call}
    seconds = take_turns(calls, machine.kernel_timer, _ROUNDS)["kernel"]
    machine.release()
    return layer.taps * _BATCH / statistics.median(seconds)
