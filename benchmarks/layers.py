"""Times single layers: our adder layer beside what it replaces and what replaced it before.

    python -m benchmarks.layers [--type TYPE] [--network NAME] [--batch-size N] [--repeat N]
                                [--json FILE]

For each different adder layer of a network the contenders take turns in one process on one thread:
our kernel at each instruction-set level; onnxruntime's convolution of the same shape, in float32 or
as a QLinearConv; and, in float32, torch.cdist on the unfolded image, as the reference
implementation evaluates the layer; in uint8, lookups of the highest level, for an input of as many
values as they take and an output of as many. Printed are the median rates in 10^9 taps (for the
convolution: MACs) per second, our time over the convolution's, and the share of the bound, the rate
of the bare inner loop of the highest level, measured in the same run. The last line weighs shares
by taps, for each level by its own bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch.nn import functional

from adder_onnx.evaluation.environment import cpu_name
from adder_onnx.files import write_atomically
from adder_onnx.kernels.cpu import (
    AdderConv,
    Program,
    QAdderConv,
    available_isas,
    inner_loop_rate,
    lookup_rate,
    most_lookup_levels,
    padded_channels,
)
from benchmarks.networks import NETWORKS, adder_layers
from benchmarks.shapes import Layer

BATCHES = {"resnet20": 16, "resnet50": 4}
PAUSE = 0.01  # seconds between contenders

Array = np.ndarray[Any, np.dtype[Any]]


def few_values(isa: str) -> list[int]:
    """As many of the integers below 16 as lookups of an instruction set take, evenly apart."""
    count = most_lookup_levels(isa)
    return [14 * i // (count - 1) for i in range(count)]


def ours(
    layer: Layer, batch: int, w: Array, isa: str, values: Sequence[int] = ()
) -> Callable[[], object]:
    """Our kernel alone, channels-last, without the conversions at the border.

    Where there are ``values``, input and output hold them alone, and their taps are looked up.
    """
    size, pad = layer.size, layer.kernel // 2
    ones, zeros = np.ones(layer.filters, np.float32), np.zeros(layer.filters, np.float32)
    strides = (layer.stride, layer.stride)
    program = Program(batch, batch)
    y_at = batch * size * size * padded_channels(layer.channels)
    sizes = ((size, size), (layer.out, layer.out), (pad, pad))
    if w.dtype == np.uint8:
        taps = layer.channels * layer.kernel**2
        scales = (1.0, 0, 100.0 * taps, 0, 0.0, 8)
        bias = ones * 150 * taps
        if values:
            w, scales, bias = w // 16, (1.0, 0, 1.0, 0, 0.0, 4), ones * (5 * taps + 7)
        arguments = (w, 0, ones, bias, *scales, strides, (1, 1), 1, isa, values, values)
        qconv = QAdderConv(*arguments)
        assert qconv.has_lookups == bool(values)
        program.add_qadder_conv(qconv, batch, *sizes, 0, -1, y_at // 4)
    else:
        conv = AdderConv(w, ones, zeros, -np.inf, np.inf, strides, (1, 1), 1, isa)
        program.add_adder_conv(conv, batch, *sizes, 0, -1, y_at)
    arena = np.random.default_rng(1).standard_normal(program.arena_size(1)).astype(np.float32)
    return lambda: program.run(arena, [], [], 1)


def convolution(layer: Layer, x: Array, w: Array) -> Callable[[], object]:
    """The convolution of onnxruntime, of the arrays' type."""
    constants = {"W": w}
    inputs = ["X", "W"]
    if w.dtype == np.uint8:
        scale, zero = np.float32(0.01), np.uint8(0)
        constants = {"s": np.asarray(scale), "z": np.asarray(zero), "W": (w >> 1).astype(np.int8)}
        constants |= {
            "ws": np.full(layer.filters, scale),
            "wz": np.zeros(layer.filters, np.int8),
        }
        inputs = ["X", "s", "z", "W", "ws", "wz", "s", "z"]
    pads, strides = [layer.kernel // 2] * 4, [layer.stride] * 2
    kind = "Conv" if len(inputs) == 2 else "QLinearConv"
    node = helper.make_node(kind, inputs, ["Y"], pads=pads, strides=strides)
    type_ = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("X", type_, list(x.shape))],
        [helper.make_tensor_value_info("Y", type_, [None] * 4)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"X": x})


def cdist(layer: Layer, x: Array, w: Array) -> Callable[[], object]:
    """The distances of torch.cdist on the unfolded image."""
    image, filters = torch.from_numpy(x), torch.from_numpy(w).reshape(layer.filters, -1)

    def run() -> object:
        columns = functional.unfold(
            image, layer.kernel, padding=layer.kernel // 2, stride=layer.stride
        )
        return -torch.cdist(columns.transpose(1, 2).contiguous(), filters, p=1.0)

    return run


def measure(layer: Layer, batch: int, repeat: int, type_: str) -> dict[str, float]:
    """Median seconds of each contender."""
    rng = np.random.default_rng(0)
    x_shape = (batch, layer.channels, layer.size, layer.size)
    w_shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    if type_ == "uint8":
        x, w = (rng.integers(0, 256, shape, np.uint8) for shape in (x_shape, w_shape))
    else:
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
    contenders = {isa: ours(layer, batch, w, isa) for isa in available_isas()}
    if type_ == "uint8":
        highest = available_isas()[-1]
        contenders["lookups"] = ours(layer, batch, w, highest, few_values(highest))
    contenders["conv"] = convolution(layer, x, w)
    if type_ == "float32":
        contenders["cdist"] = cdist(layer, x, w)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(repeat + 1):
        for name, run in contenders.items():
            if name == "cdist" and i > 2:  # by far the slowest
                continue
            time.sleep(PAUSE)
            if name != "cdist":
                run()  # what a network's layer finds in the cache, it finds here
            start = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", choices=("uint8", "float32"), default="float32")
    parser.add_argument("--network", choices=tuple(NETWORKS))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["ADDER_ONNX_LOOKUPS"] = "always"
    isas = available_isas()
    bounds = {isa: inner_loop_rate(options.type, isa, 1, 0.5) for isa in isas}
    if options.type == "uint8":
        bounds["lookups"] = lookup_rate(isas[-1], most_lookup_levels(isas[-1]), 1, 0.5)
    ours_are = list(bounds)
    names = [*ours_are, "conv", *(["cdist"] if options.type == "float32" else [])]
    print(
        f"{cpu_name()}, one thread, {options.type}, 10^9 taps or MACs per second (median of "
        f"{options.repeat}); the bare loops do "
        + ", ".join(f"{bound / 1e9:.1f} ({isa})" for isa, bound in bounds.items())
    )
    rows = []
    for network in [options.network] if options.network else NETWORKS:
        batch = options.batch_size or BATCHES[network]
        print(f"{f'{network}, batch {batch}':32}" + "".join(f"{n:>9}" for n in names), end="")
        print("   ours/conv  of bound")
        taken = dict.fromkeys(ours_are, 0.0)
        all_taps = 0
        for layer in adder_layers(network):
            taps = layer.taps * batch
            seconds = measure(layer, batch, options.repeat, options.type)
            rates = "".join(f"{taps / seconds[name] / 1e9:9.1f}" for name in names)
            ratio = seconds[isas[-1]] / seconds["conv"]
            share = taps / seconds[isas[-1]] / bounds[isas[-1]]
            print(f"{layer!s:32}{rates}{ratio:7.2f} x time{100 * share:7.0f} %", flush=True)
            all_taps += layer.count * taps
            for isa in ours_are:
                taken[isa] += layer.count * seconds[isa]
            rows.append({"network": network, "layer": str(layer), "taps": taps, "seconds": seconds})
        shares = {isa: all_taps / taken[isa] / bounds[isa] for isa in ours_are}
        print(
            "all layers, by taps: "
            + ", ".join(f"{isa} {100 * share:.0f} %" for isa, share in shares.items())
        )
    if options.json:
        result = {
            "cpu": cpu_name(),
            "type": options.type,
            "bounds": bounds,
            "onnxruntime": onnxruntime.__version__,
            "rows": rows,
        }
        write_atomically(options.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
