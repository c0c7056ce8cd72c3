"""Times the tiles that layers could take, and numbers of blocks that could share their sums.

    python -m benchmarks.cuda.sweep [--json FILE]

For the adder layers of ResNet-20 and ResNet-50, each shape once, and a few others, in float32,
float16 and uint8: what `select_grid` predicts and selects, beside what is the fastest. Of numbers
of blocks a few are tried, and the selected one. Timing is that of `benchmarks.cuda`; all grids of
a layer take turns. Each is compared with the kernel of one thread for each output first: the last
image, in uint8 to the bit.

The result goes to ``benchmarks/results/cuda-sweep-<device>.json`` unless --json says otherwise,
and is written anew after each row. ``python -m benchmarks.cuda.costs`` fits the costs of
adder_onnx/kernels/cuda/launch/cost.py to it.

The exit status is 0, 1 where a kernel's output is wrong, and 2 where there is no GPU or the result
cannot be written.

JSON, schema 1: as that of `benchmarks.cuda` up to ``arguments``; ``bound`` and ``sm_clock`` too;
``rows``: ``network`` (or ``other``), ``layer``, ``batch``, ``type``, ``taps``, ``pixels``,
``columns``, ``turns`` (as in `Product`), ``selected`` (a number into ``grids``), and ``grids``:
``pixels``, ``filters``, ``threads``, ``turn`` (its size, of the largest tile's) and ``splits``;
``blocks`` without splits; ``cycles`` that are predicted; ``seconds`` of a call, the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.needed import conv_kernels, integer_conv_kernels
from adder_onnx.kernels.cuda.launch.selection import (
    Product,
    grid_cycles,
    grids,
    select_grid,
    turn_size,
)
from adder_onnx.kernels.cuda.launch.variants import (
    Kernel,
    direct,
    integer_direct,
    integer_pack,
    pack,
)
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.conditions import environment
from benchmarks.cuda.launches import prepare, random_conv
from benchmarks.cuda.layers import BOUNDED
from benchmarks.cuda.machine import CudaMachine, Inputs, SessionMachine
from benchmarks.cuda.rounding import TOLERANCE, WrongResultError
from benchmarks.cuda.timing import Call, take_turns
from benchmarks.environment import result_path
from benchmarks.networks import adder_layers
from benchmarks.shapes import Layer

__all__ = ["main", "measure"]

BATCHES = {"resnet50": (64, 1), "resnet20": (128, 1)}

OTHERS = (
    (Layer(64, 64, 56, 3, 1), 8),
    (Layer(128, 128, 28, 3, 1), 8),
    (Layer(256, 256, 14, 3, 1), 8),
    (Layer(512, 512, 7, 3, 1), 8),
    (Layer(96, 80, 20, 3, 1), 4),
    (Layer(384, 192, 13, 3, 1), 1),
    (Layer(48, 24, 40, 5, 1), 1),
)

SPLITS = {1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 18, 24, 32, 48, 64}
"""That are tried."""

_ROUNDS = 5
_LEAST = 3e-4
"""Seconds of calls that are timed together."""


def layers() -> Iterator[tuple[str, Layer, int]]:
    """Network, layer and batch; a network's layers of equal work are there once."""
    for network, batches in BATCHES.items():
        different = {(a.channels, a.filters, a.kernel, a.out): a for a in adder_layers(network)}
        for batch in batches:
            for layer in different.values():
                yield network, layer, batch
    for layer, batch in OTHERS:
        yield "other", layer, batch


def measure(
    machine: SessionMachine,
    cases: Sequence[tuple[str, Layer, int]],
    done: Callable[[dict[str, Any]], None],
) -> None:
    """Times all grids of the layers; each row goes to ``done``.

    Raises:
        WrongResultError: a kernel computes something else.
    """
    machine.gpu.prepare(_kernels(machine, cases))
    for network, layer, batch in cases:
        for type_ in BOUNDED:
            done({"network": network} | _row(machine, layer, batch, type_))
            machine.release()


def _kernels(machine: SessionMachine, cases: Sequence[tuple[str, Layer, int]]) -> set[Kernel]:
    found = {integer_direct(), integer_pack(words=False)}
    for _, a, _ in cases:
        shape = (1, a.channels, a.filters, (a.kernel, a.kernel))
        found |= integer_conv_kernels(machine.device.target, *shape)
        for type_ in TOLERANCE:
            found |= conv_kernels(type_, *shape) | {direct(type_), pack(type_, words=False)}
    return found


def _row(machine: SessionMachine, layer: Layer, batch: int, type_: str) -> dict[str, Any]:
    device = machine.device
    conv = random_conv(device, layer, type_)
    product: Product[Any] = conv.product(batch * layer.out**2)
    selected = select_grid(product, device.multiprocessors)
    options = [
        grid
        for grid in grids(product, device.multiprocessors)
        if grid[1] in SPLITS or grid == selected
    ]
    row = layout.padded_channels(layer.channels, type_)
    inputs = Inputs(machine, (batch, layer.size, layer.size, row), type_)
    expected = _last_image(machine, layer, inputs.arrays[0][-1], type_)
    calls: dict[str, Call] = {}
    for number, grid in enumerate(options):
        launch, y = prepare(device, conv, layer, batch, type_, grid)
        launch.run(device, x=device.pointer(inputs.arrays), y=device.pointer(y))
        if not _is_near(machine.download(y[-1]), expected, layer, type_):
            raise WrongResultError(
                f"{' '.join(str(layer).split())}, batch {batch}, {type_}: {grid} gives another "
                "result than one thread for each output"
            )

        def call(launch: Any = launch, y: Any = y) -> None:
            launch.run(device, x=inputs.next_address(), y=device.pointer(y))

        calls[str(number)] = call
    seconds = take_turns(calls, machine.kernel_timer, _ROUNDS, _LEAST)
    return {
        "layer": " ".join(str(layer).split()),
        "batch": batch,
        "type": type_,
        "taps": layer.taps * batch,
        "pixels": product.pixels,
        "columns": product.columns,
        "turns": product.turns,
        "selected": options.index(selected),
        "grids": [
            {
                "pixels": tile.pixels,
                "filters": tile.filters,
                "threads": tile.threads,
                "turn": turn_size(tile),
                "splits": splits,
                "blocks": product.blocks(tile),
                "cycles": grid_cycles(product, tile, splits, device.multiprocessors),
                "seconds": statistics.median(seconds[str(number)]),
            }
            for number, (tile, splits) in enumerate(options)
        ],
    }


def _last_image(machine: SessionMachine, layer: Layer, x: Any, type_: str) -> NDArray[Any]:
    """The output of one image by one thread for each of its elements."""
    device = machine.device
    conv = random_conv(device, layer, type_, force_direct=True)
    launch, y = prepare(device, conv, layer, 1, type_)
    launch.run(device, x=device.pointer(x), y=device.pointer(y))
    return machine.download(y[0])


def _is_near(y: NDArray[Any], expected: NDArray[Any], layer: Layer, type_: str) -> bool:
    y, expected = (array[..., : layer.filters] for array in (y, expected))
    if type_ == "uint8":
        return np.array_equal(y, expected)
    of_root, of_output = TOLERANCE[type_]
    allowed = 2 * of_root * np.sqrt(layer.channels * layer.kernel**2)  # both are off
    error = np.abs(y.astype(np.float32) - expected.astype(np.float32))
    return bool((error <= allowed + 2 * of_output * np.abs(expected)).all())


def _line(row: dict[str, Any], clock: float) -> str:
    best = min(row["grids"], key=lambda grid: grid["seconds"])
    chosen = row["grids"][row["selected"]]

    def told(grid: dict[str, Any]) -> str:
        tile = f"{grid['pixels']}x{grid['filters']}"
        return f"{tile:>6} / {grid['splits']:<2} {grid['seconds'] * 1e6:7.1f} us"

    return (
        f"{row['layer']:24}{row['batch']:4} {row['type']:8}"
        f"selected {told(chosen)} ({chosen['cycles'] / clock * 1e6:6.1f} + launch predicted), "
        f"fastest {told(best)}, {100 * best['seconds'] / chosen['seconds']:3.0f} %"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda.sweep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args(argv)
    try:
        check_cuda(0)
        result = environment() | {"benchmark": "cuda sweep"}
        path = options.json or result_path(result)
        check_writable(path)
        machine = CudaMachine()
        result["bound"] = {type_: machine.bound(type_) for type_ in BOUNDED}
        clock = result["sm_clock"] = machine.sm_clock()
        result["rows"] = []
        measure(machine, list(layers()), partial(_keep, result, path, clock))
    except AdderError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except WrongResultError as error:
        print(f"{parser.prog}: wrong result: {error}", file=sys.stderr)
        return 1
    print(f"written to {path}")
    return 0


def _keep(result: dict[str, Any], path: Path, clock: float, row: dict[str, Any]) -> None:
    print(_line(row, clock), flush=True)
    result["rows"].append(row)
    write_atomically(path, (json.dumps(result) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
