"""The conversions between (N, C, H, W) and channels-last at the borders of a network's chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.variants import TYPES
from benchmarks.cuda.layers import BATCHES
from benchmarks.cuda.machine import Inputs, Machine
from benchmarks.cuda.timing import Call, summary, take_turns
from benchmarks.networks import adder_layers

__all__ = ["borders", "measure_borders"]

Shape = tuple[int, int, int, int]


def borders(network: str, batch: int) -> dict[str, Shape]:
    """What enters and what leaves the chain of a network's adder layers."""
    layers = adder_layers(network)
    first, widest = layers[0], max(layers, key=lambda layer: layer.filters)
    return {
        "enter": (batch, first.channels, first.size, first.size),
        "leave": (batch, widest.filters, widest.out, widest.out),
    }


def measure_borders(
    machine: Machine, rounds: int, quick: bool, done: Callable[[Any], None]
) -> None:
    """Times the conversions; each row goes to ``done``."""
    for network, batches in BATCHES.items():
        for batch in batches[:1] if quick else batches:
            for direction, shape in borders(network, batch).items():
                calls = {type_: _conversion(machine, direction, shape, type_) for type_ in TYPES}
                found = take_turns(calls, machine.kernel_timer, rounds)
                for type_, seconds in found.items():
                    row = _row(network, direction, shape, type_, summary(seconds))
                    print(
                        f"{network}, batch {batch}, {direction} {shape[1:]} {type_}: "
                        f"{row['seconds']['median'] * 1e6:.1f} us, "
                        f"{row['bytes_per_second'] / 1e9:.0f} GB/s",
                        flush=True,
                    )
                    done(row)
                del calls
                machine.release()


def _row(
    network: str, direction: str, shape: Shape, type_: str, seconds: dict[str, float]
) -> dict[str, Any]:
    moved = 2 * int(np.prod(shape)) * np.dtype(type_).itemsize
    return {
        "network": network,
        "batch": shape[0],
        "direction": direction,
        "shape": list(shape),
        "type": type_,
        "bytes": moved,
        "seconds": seconds,
        "bytes_per_second": moved / seconds["median"],
    }


def _conversion(machine: Machine, direction: str, shape: Shape, type_: str) -> Call:
    device = machine.device
    batch, channels, height, width = shape
    # Large enough in both layouts: channels-last ones may be padded.
    size = batch * layout.padded_channels(channels, type_) * height * width
    inputs = Inputs(machine, (size,), type_)
    y = device.empty((size,), type_)
    convert = layout.enter if direction == "enter" else layout.leave
    launch = convert(shape, type_, type_)

    def call() -> None:
        launch.run(device, **{"from": inputs.next_address(), "to": device.pointer(y)})

    return call
