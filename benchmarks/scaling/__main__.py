"""How fast ``adder-run --engine ray`` is beside ``adder-run``, and what 100 machines would do.

    python -m benchmarks.scaling [--images N] [--rounds N] [--json FILE]
    python -m benchmarks.scaling --check

Whole commands over generated images of 32 x 32 pixels with a ResNet-20 of random weights, taking
turns: the local command over class folders, and Ray over these, Parquet and tars, with one actor,
with two, and on a cluster of three local nodes. Memory is the sum of what all processes of a
command have, looked at twice a second, without what they share. For the model of many machines, the
time to decode a photograph and to run ResNet-50 for it is measured on one core.

The result goes to ``benchmarks/results/scaling-<processor>.json`` and into the tables of
docs/scaling.md, unless --json names another file; --check only compares the two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from adder_onnx import InferenceSession
from adder_onnx.evaluation import Network, decode_image, preprocess
from adder_onnx.files import write_atomically
from adder_onnx.metadata import ModelMetadata, Preprocessing
from benchmarks.documents import ROOT, results_of, update_table
from benchmarks.environment import environment, result_path
from benchmarks.networks import export_adder
from benchmarks.scaling.data import CLASSES, make_folders, make_parquet, make_tars, photograph
from benchmarks.scaling.memory import run_watched
from benchmarks.scaling.table import COMMAND, DOCUMENT, tables

_NODES = 3
_BATCH = 8
_REPEATS = 5


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="generated (100000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (3)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    if options.check:
        return update_table(DOCUMENT, COMMAND, tables(results_of("scaling")), check=True)
    with tempfile.TemporaryDirectory() as folder:
        result = environment("scaling") | {
            "images": options.images,
            "commands": _commands(Path(folder), options.images, options.rounds),
            "photograph": _photograph(Path(folder)),
        }
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    write_atomically(options.json or result_path(result), text.encode())
    if options.json is None:
        update_table(DOCUMENT, COMMAND, tables(results_of("scaling")), check=False)
    return 0


def _commands(folder: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender: medians over its turns."""
    makers: dict[str, Callable[[Path, int], None]] = {
        "class folders": make_folders,
        "Parquet": make_parquet,
        "tars": make_tars,
    }
    for name, make in makers.items():
        make(folder / name, images)
        make(folder / f"fifth of {name}", images // 5)
    model = _network("resnet20", 32, CLASSES, folder)
    one = ["--actors", "1", "--cpus-per-actor", "2"]
    two = ["--actors", "2", "--cpus-per-actor", "1"]
    contenders = [
        ("local", "class folders", 1.0, []),
        ("Ray, 1 actor of 2 CPUs", "class folders", 1.0, one),
        ("Ray, 2 actors of 1 CPU", "class folders", 1.0, two),
        ("Ray, 1 actor of 2 CPUs", "Parquet", 1.0, one),
        ("Ray, 1 actor of 2 CPUs", "tars", 1.0, one),
        ("Ray, 1 actor of 2 CPUs", "class folders", 0.2, one),
        (f"Ray, {_NODES} nodes of 1 CPU", "class folders", 1.0, ["--cpus-per-actor", "1"]),
    ]
    turns: list[list[dict[str, Any]]] = [[] for _ in contenders]
    for _ in range(rounds):
        for turn, (engine, format, share, options) in zip(turns, contenders, strict=True):
            data = folder / (format if share == 1 else f"fifth of {format}")
            words = ["--data", str(data), *options]
            if engine == "local":
                turn.append(run_watched(model, words))
            elif "nodes" in engine:
                with _cluster() as address:
                    turn.append(run_watched(model, [*words, *_ray(address)]))
            else:
                turn.append(run_watched(model, [*words, *_ray(None)]))
            print(engine, format, share, turn[-1], file=sys.stderr)
    return [
        {"engine": engine, "data": format, "images": int(images * share)}
        | {key: statistics.median(one[key] for one in turn) for key in turn[0]}
        for turn, (engine, format, share, _) in zip(turns, contenders, strict=True)
    ]


def _ray(address: str | None) -> list[str]:
    return ["--engine", "ray", *(["--address", address] if address else [])]


@contextmanager
def _cluster() -> Iterator[str]:
    """A cluster of local nodes, in a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scaling.cluster", str(_NODES)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


def _network(name: str, pixels: int, labels: tuple[str, ...] | None, folder: Path) -> Path:
    """A network of random weights that says how images become its input."""
    model = onnx.load(export_adder(name, folder))
    how = Preprocessing(3, pixels, pixels, (0.5,) * 3, (0.25,) * 3)
    if pixels > 32:
        how = replace(how, resize=256, crop=True)
    onnx.helper.set_model_props(model, ModelMetadata(name, how, labels).to_props())
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def _photograph(folder: Path) -> dict[str, Any]:
    """Bytes of a photograph, and seconds of one core to decode it and to run ResNet-50 for it."""
    data = photograph()
    session = InferenceSession(_network("resnet50", 224, None, folder), threads=1)
    network = Network(session)
    how = network.preprocessing()
    assert how is not None
    image = preprocess(decode_image(data), how)
    batch = np.stack([image] * _BATCH)
    return {
        "bytes": len(data),
        "decoding_seconds": _median(lambda: preprocess(decode_image(data), how)),
        "model_seconds": _median(lambda: network(batch)) / _BATCH,
    }


def _median(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
