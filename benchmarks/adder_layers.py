"""Times single layers: our float32 adder layer beside what it replaces and what replaced it before.

For each shape the contenders take turns in one process on one thread: our kernel at each
instruction-set level, onnxruntime's float32 convolution of the same shape, and torch.cdist on the
unfolded image, as the reference implementation evaluates the layer. Printed are the median rates in
10^9 taps (for the convolution: MACs) per second, and our time over the convolution's. The limit of
the direct form, |x - w| summed in float32, is two additions and one bit operation per tap.

    python benchmarks/adder_layers.py [--repeat 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
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

from adder_onnx.kernels.cpu import AdderConv, Program, available_isas, padded_channels

# batch, channels, size, filters, kernel, stride: the layers of ResNet-20 and ResNet-50.
LAYERS = [
    (16, 16, 32, 16, 3, 1),
    (16, 32, 16, 32, 3, 1),
    (16, 64, 8, 64, 3, 1),
    (4, 64, 56, 64, 3, 1),
    (4, 64, 56, 256, 1, 1),
    (4, 128, 28, 128, 3, 1),
    (4, 1024, 14, 256, 1, 1),
    (4, 256, 14, 256, 3, 1),
    (4, 512, 7, 512, 3, 1),
    (4, 2048, 7, 512, 1, 1),
]
PAUSE = 0.01  # seconds between contenders

Layer = tuple[int, int, int, int, int, int]
Array = np.ndarray[Any, np.dtype[np.float32]]


def ours(layer: Layer, w: Array, isa: str) -> Callable[[], object]:
    """Our kernel alone, channels-last, without the conversions at the border."""
    n, c, size, m, k, stride = layer
    ones, zeros = np.ones(m, np.float32), np.zeros(m, np.float32)
    conv = AdderConv(w, ones, zeros, -np.inf, np.inf, (stride, stride), (1, 1), 1, isa)
    out = (size + 2 * (k // 2) - k) // stride + 1
    program = Program()
    y_at = n * size * size * padded_channels(c)
    program.add_adder_conv(conv, n, (size, size), (out, out), (k // 2, k // 2), 0, -1, y_at)
    arena = np.random.default_rng(1).standard_normal(program.arena_size).astype(np.float32)
    return lambda: program.run(arena, [], [], 1)


def convolution(layer: Layer, x: Array, w: Array) -> Callable[[], object]:
    """The float32 convolution of onnxruntime."""
    n, _, _, m, k, stride = layer
    node = helper.make_node("Conv", ["X", "W"], ["Y"], pads=[k // 2] * 4, strides=[stride] * 2)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [n, m, None, None])],
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
    """torch.cdist on the unfolded image."""
    _, _, _, m, k, stride = layer
    image, filters = torch.from_numpy(x), torch.from_numpy(w).reshape(m, -1)

    def run() -> object:
        columns = functional.unfold(image, k, padding=k // 2, stride=stride).transpose(1, 2)
        return -torch.cdist(columns.contiguous(), filters, p=1.0)

    return run


def measure(layer: Layer, repeat: int) -> dict[str, float]:
    """Median seconds of each contender."""
    n, c, size, m, k, _ = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    w = rng.standard_normal((m, c, k, k)).astype(np.float32)
    contenders = {isa: ours(layer, w, isa) for isa in available_isas()}
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


def cpu_name() -> str:
    """The processor's name as Linux gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [*available_isas(), "conv", "cdist"]
    print(f"{cpu_name()}, one thread, 10^9 taps or MACs per second (median of {options.repeat})")
    print(f"{'n  c x size -> m, kernel':28}" + "".join(f"{n:>9}" for n in names) + "   ours/conv")
    rows = []
    for layer in LAYERS:
        n, c, size, m, k, stride = layer
        out = (size + 2 * (k // 2) - k) // stride + 1
        taps = n * out * out * m * c * k * k
        seconds = measure(layer, options.repeat)
        ratio = seconds[available_isas()[-1]] / seconds["conv"]
        title = f"{n:2} {c:4} x {size:2} -> {m:4}, {k} x {k}"
        rates = "".join(f"{taps / seconds[name] / 1e9:9.1f}" for name in names)
        print(f"{title:28}{rates}{ratio:11.2f}x time", flush=True)
        rows.append({"layer": layer, "taps": taps, "seconds": seconds})
    if options.json:
        result = {"cpu": cpu_name(), "onnxruntime": onnxruntime.__version__, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
