"""Times single layers: our float32 adder layer beside what it replaces and what replaced it before.

    python -m benchmarks.layers [--network NAME] [--batch-size N] [--repeat N] [--json FILE]

For each different adder layer of a network the contenders take turns in one process on one thread:
our kernel at each instruction-set level, onnxruntime's float32 convolution of the same shape, and
torch.cdist on the unfolded image, as the reference implementation evaluates the layer. Printed are
the median rates in 10^9 taps (for the convolution: MACs) per second, our time over the
convolution's, and the share of the bound, the rate of the bare inner loop of the highest level,
measured in the same run. The last line weighs shares by taps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch.nn import functional

from adder_onnx.evaluation.environment import cpu_name
from adder_onnx.files import write_atomically
from adder_onnx.kernels.cpu import (
    AdderConv,
    Program,
    available_isas,
    inner_loop_rate,
    padded_channels,
)
from benchmarks.networks import NETWORKS, Layer, adder_layers

BATCHES = {"resnet20": 16, "resnet50": 4}
PAUSE = 0.01  # seconds between contenders

Array = np.ndarray[Any, np.dtype[np.float32]]


def ours(layer: Layer, batch: int, w: Array, isa: str) -> Callable[[], object]:
    """Our kernel alone, channels-last, without the conversions at the border."""
    size, pad = layer.size, layer.kernel // 2
    ones, zeros = np.ones(layer.filters, np.float32), np.zeros(layer.filters, np.float32)
    strides = (layer.stride, layer.stride)
    conv = AdderConv(w, ones, zeros, -np.inf, np.inf, strides, (1, 1), 1, isa)
    program = Program()
    y_at = batch * size * size * padded_channels(layer.channels)
    sizes = ((size, size), (layer.out, layer.out), (pad, pad))
    program.add_adder_conv(conv, batch, *sizes, 0, -1, y_at)
    arena = np.random.default_rng(1).standard_normal(program.arena_size).astype(np.float32)
    return lambda: program.run(arena, [], [], 1)


def convolution(layer: Layer, x: Array, w: Array) -> Callable[[], object]:
    """The float32 convolution of onnxruntime."""
    pads, strides = [layer.kernel // 2] * 4, [layer.stride] * 2
    node = helper.make_node("Conv", ["X", "W"], ["Y"], pads=pads, strides=strides)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)],
        [onnx.numpy_helper.from_array(w, "W")],
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


def measure(layer: Layer, batch: int, repeat: int) -> dict[str, float]:
    """Median seconds of each contender."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size)).astype(np.float32)
    shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    w = rng.standard_normal(shape).astype(np.float32)
    contenders = {isa: ours(layer, batch, w, isa) for isa in available_isas()}
    contenders |= {"conv": convolution(layer, x, w), "cdist": cdist(layer, x, w)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(repeat + 1):
        for name, run in contenders.items():
            if name == "cdist" and i > 2:  # by far the slowest
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=tuple(NETWORKS))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best = available_isas()[-1]
    bound = inner_loop_rate(best, 1, 0.5)
    names = [*available_isas(), "conv", "cdist"]
    print(
        f"{cpu_name()}, one thread, 10^9 taps or MACs per second (median of {options.repeat}); the "
        f"bare {best} loop does {bound / 1e9:.1f}"
    )
    rows = []
    for network in [options.network] if options.network else NETWORKS:
        batch = options.batch_size or BATCHES[network]
        print(f"{f'{network}, batch {batch}':32}" + "".join(f"{n:>9}" for n in names), end="")
        print("   ours/conv  of bound")
        ideal = spent = 0.0
        for layer in adder_layers(network):
            taps = layer.taps * batch
            seconds = measure(layer, batch, options.repeat)
            rates = "".join(f"{taps / seconds[name] / 1e9:9.1f}" for name in names)
            ratio, share = seconds[best] / seconds["conv"], taps / seconds[best] / bound
            print(f"{layer!s:32}{rates}{ratio:7.2f} x time{100 * share:7.0f} %", flush=True)
            ideal += layer.count * taps / bound
            spent += layer.count * seconds[best]
            rows.append({"network": network, "layer": str(layer), "taps": taps, "seconds": seconds})
        print(f"{'all layers, by taps':32}{100 * ideal / spent:{9 * len(names) + 21}.0f} %")
    if options.json:
        result = {"cpu": cpu_name(), "onnxruntime": onnxruntime.__version__, "rows": rows}
        write_atomically(options.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
