"""Compiled files in a stock onnxruntime with our library, against our own runtime.

    python -m benchmarks.library [--onnxruntime FOLDER …] [--batch-size N,…] [--threads N,…]
                                 [--seconds S] [--json FILE]

The network is ResNet-20 with random weights, in float32 and in 8 bits. Contenders: our runtime,
and the compiled file in onnxruntime, that of this environment and those that ``pip install
--target FOLDER onnxruntime==VERSION`` has put into folders. Each has a process of its own; they
take turns of a second. The result goes to ``benchmarks/results/library-<cpu>.json`` unless --json
says otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from adder_onnx.files import write_atomically
from benchmarks.documents import ROOT
from benchmarks.environment import environment, result_path
from benchmarks.process import Process
from benchmarks.race.worker import Call, ours

FOLDER = ROOT / "build" / "library"
ROUNDS = 7
PAUSE = 0.2  # seconds between turns
NETWORKS = {"float32": "resnet20_adder", "uint8": "resnet20_adder_int8"}


class Worker:
    """A contender and its times."""

    def __init__(self, arguments: list[str], onnxruntime: Path | None) -> None:
        self.seconds: list[float] = []
        self.process = Process("benchmarks.library", ["--worker", *arguments], onnxruntime)

    def turn(self, seconds: float) -> None:
        """Lets it run for about so long."""
        self.seconds += self.process.turn(seconds)


def race(
    network: str, batch: int, threads: int, folders: list[Path], seconds: float
) -> list[dict[str, Any]]:
    """One race: a row for each contender, ours first."""
    path = FOLDER / f"{NETWORKS[network]}.onnx"
    compiled = path.with_suffix(".compiled.onnx")
    numbers = [str(batch), str(threads)]
    workers = [Worker(["ours", str(path), *numbers], None)]
    workers += [Worker(["library", str(compiled), *numbers], f) for f in (None, *folders)]
    for _ in range(ROUNDS):
        for worker in workers:
            time.sleep(PAUSE)
            worker.turn(seconds)
    rates = [batch / float(np.median(worker.seconds)) for worker in workers]
    rows = []
    for i, (worker, rate) in enumerate(zip(workers, rates, strict=True)):
        kind = "library" if i else "ours"
        worker.process.stop()
        rows.append(
            {
                "network": network,
                "batch": batch,
                "threads": threads,
                "contender": kind,
                "onnxruntime": worker.process.ready,
                "images_per_second": rate,
                "ratio": rate / rates[0],
            }
        )
        print(
            f"{network:8} batch {batch:4} threads {threads} {kind:8} onnxruntime "
            f"{worker.process.ready:8} {rate:9.0f} images/s  {rate / rates[0]:.2f} x ours",
            flush=True,
        )
    return rows


def library(path: Path, images: Any, threads: int) -> Call:
    import onnxruntime

    import adder_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(adder_onnx.get_library_path())
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": images})


def work(kind: str, path: str, batch: str, threads: str) -> None:
    """The contender: a line of JSON when it is ready, and one for each turn."""
    import onnxruntime

    images = np.random.default_rng(0).standard_normal((int(batch), 3, 32, 32)).astype(np.float32)
    call = {"ours": ours, "library": library}[kind](Path(path), images, int(threads))
    call()
    print(json.dumps(onnxruntime.__version__), flush=True)
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        seconds = []
        while not seconds or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def _prepare() -> None:
    from adder_onnx.compilation import compile_model

    code = (
        "import sys; from pathlib import Path; from benchmarks.race.models import files\n"
        "files('resnet20', Path(sys.argv[1]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(FOLDER)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in NETWORKS.values():
        path = FOLDER / f"{name}.onnx"
        onnx.save(compile_model(onnx.load(path)).model, path.with_suffix(".compiled.onnx"))


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnxruntime", type=Path, nargs="*", default=[])
    parser.add_argument("--batch-size", type=_numbers, default=(1, 128))
    parser.add_argument("--threads", type=_numbers, default=(1, 2))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = environment("library") | {"rows": []}
    path = options.json or result_path(result)
    _prepare()
    for network in NETWORKS:
        for batch in options.batch_size:
            for threads in options.threads:
                result["rows"] += race(
                    network, batch, threads, options.onnxruntime, options.seconds
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written to {path}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
