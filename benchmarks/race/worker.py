"""One contender in a process of its own: it runs when it is told to, and is idle in between.

    python -m benchmarks.race.worker CONTENDER NETWORK BATCH THREADS FOLDER

When it is ready, and has run once, it writes a line of JSON. For each line on standard input,
a number of seconds, it then runs for about that long (once, at least) and answers with another:
``seconds`` of each run, and ``peak_bytes``, the process's maximum resident size less what was
resident after its imports.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.contenders import CONTENDERS, LEVELS, SIZES

Call = Callable[[], object]


def ours(path: Path, images: Any, threads: int) -> Call:
    import adder_onnx

    session = adder_onnx.InferenceSession(path, threads=threads)
    return lambda: session.run(None, {"input": images})


def onnxruntime(path: Path, images: Any, threads: int) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": images})


def openvino(path: Path, images: Any, threads: int) -> Call:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape({"input": list(images.shape)})
    # By itself it computes float32 models in bfloat16 where the processor can.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({"input": images})


def cdist(network: str, images: Any, threads: int) -> Call:
    import torch

    from benchmarks.race.models import reference_network

    torch.set_num_threads(threads)
    model, tensor = reference_network(network), torch.from_numpy(images)

    def call() -> None:
        with torch.inference_mode():
            model(tensor)

    return call


IMPORTS = {
    "ours": ("adder_onnx", "onnxruntime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "cdist": ("benchmarks.race.models",),
}
"""What each kind of contender needs."""


def resident_bytes() -> int:
    """What of this process is in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """The most that was in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make(contender: str, network: str, batch: int, threads: int, folder: Path) -> Call:
    size = SIZES[network]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    kind, file = CONTENDERS[contender]
    if contender in LEVELS:
        from adder_onnx.kernels.cpu import most_lookup_levels, select_isa

        if most_lookup_levels(select_isa()) < LEVELS[contender]:
            raise SystemExit(f"no lookups for {LEVELS[contender]} levels")
    if kind == "cdist":
        return cdist(network, images, threads)
    path = folder / f"{network}_{file}.onnx"
    runtimes = {"ours": ours, "onnxruntime": onnxruntime, "openvino": openvino}
    return runtimes[kind](path, images, threads)


def main() -> None:
    contender, network, batch, threads, folder = sys.argv[1:]
    for module in IMPORTS[CONTENDERS[contender][0]]:
        importlib.import_module(module)
    before = resident_bytes()
    call = make(contender, network, int(batch), int(threads), Path(folder))
    call()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        seconds = []
        while True:
            start = time.perf_counter()
            call()
            now = time.perf_counter()
            seconds.append(now - start)
            if now >= end:
                break
        answer = {"seconds": seconds, "peak_bytes": peak_bytes() - before}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
