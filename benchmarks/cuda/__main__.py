"""Times the CUDA kernels, by layer and by network, beside what a GPU offers instead of them.

    python -m benchmarks.cuda [--quick] [--only layers|networks] [--json FILE]

Contenders for a layer: our kernel in float32, float16 and uint8; a naive kernel with one thread for
each output; torch.cdist on the unfolded image, as the reference implementation evaluates the layer;
and cuDNN's convolution of the same shape through torch, in float32 without and with TF32 and in
float16, in the faster of both layouts. They take turns; times are of CUDA events around several
calls that were queued behind a kernel which waits, so that Python's part does not show; inputs
rotate over more than twice the memory that the L2 cache holds. Printed are medians in 10^12 taps
(or multiply-accumulates) per second, and the shares of the bound in each of our types: the rate of
the bare inner loop in registers, measured in the same run, for uint8 in all ways in which a GPU can
add up differences. Before a layer is timed, outputs are compared with float64, those of uint8 to
the bit with the operator's definition. The conversions at the borders of a network's chain have
rows of their own.

Networks are timed by the clock, over calls that follow each other until the last one's result is
there, with inputs on the GPU; their twins in torch also as CUDA graphs.

The result goes to ``benchmarks/results/<device>.json`` unless --json says otherwise, and is written
anew after each row: a run that is cut off leaves what it has measured.
``python -m benchmarks.cuda.table`` makes the table in docs/gpu.md from what lies there.

The exit status is 0, 1 where a kernel's output is wrong, and 2 where there is no GPU or the result
cannot be written.

JSON, schema 1: ``device``, ``compute_capability``, ``multiprocessors``, ``driver_and_clocks``
(driver, clock, highest clock as nvidia-smi prints them, or ``unknown``), ``versions``, ``commit``
(empty outside of a repository), ``date``, ``arguments``, ``bound`` (taps per second by type),
``uint8_distances`` (the same by the way in which differences of uint8 are added up), ``sm_clock``
(Hz, measured beside the bound), and lists of rows, ``layers``, ``borders`` and ``networks``. All
``seconds`` are ``{"median", "p10", "p90"}`` of one call. In a layer's row, ``cdist_batch`` below
``batch`` says that torch.cdist, for want of memory, was timed with fewer images and its time scaled
up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adder_onnx.errors import AdderError
from adder_onnx.evaluation.environment import gpu_name, versions
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.kernels.cuda.launch.selection import select_distances
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.borders import measure_borders
from benchmarks.cuda.layers import BOUNDED, WrongResultError, measure_layers
from benchmarks.cuda.machine import CudaMachine, Machine
from benchmarks.cuda.networks import measure_networks

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = 1
ROUNDS, QUICK_ROUNDS = 11, 3


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    import cupy
    import torch

    device = cupy.cuda.Device(0)
    runtime = cupy.cuda.runtime
    capability = device.compute_capability
    driver = _output_of(
        "nvidia-smi",
        f"--id={device.pci_bus_id}",
        "--query-gpu=driver_version,clocks.sm,clocks.max.sm",
        "--format=csv,noheader",
    )
    return {
        "benchmark": "cuda",
        "schema": SCHEMA,
        "device": gpu_name("cuda:0"),
        "compute_capability": f"{capability[:-1]}.{capability[-1]}",
        "multiprocessors": runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, 0),
        "driver_and_clocks": driver or "unknown",
        "versions": {**versions("cuda:0"), "torch": torch.__version__},
        "commit": _output_of("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def _output_of(*command: str) -> str:
    """What a command prints; nothing where it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""


def file_name(device: str) -> str:
    """The result's name: ``nvidia-h100-80gb-hbm3.json``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def measure_all(
    machine: Machine, result: dict[str, Any], path: Path, *, quick: bool, only: str | None
) -> None:
    """Measures, and writes the result after each row.

    Args:
        machine: what is measured.
        result: what is known before; grows.
        path: where it goes.
        quick: a few layers and rounds.
        only: ``layers`` or ``networks``; None for both.

    Raises:
        AdderError: the result cannot be written, or the runtime fails.
        WrongResultError: a kernel computes something else.
    """
    rounds = QUICK_ROUNDS if quick else ROUNDS
    result |= {"layers": [], "borders": [], "networks": []}

    def keep(section: str, row: Any) -> None:
        result[section].append(row)
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())

    if only != "networks":
        bound = result["bound"] = {type_: machine.bound(type_) for type_ in BOUNDED}
        result["uint8_distances"] = machine.distances()
        result["sm_clock"] = machine.sm_clock()
        print(
            f"{result['device']}, {result['sm_clock'] / 1e9:.2f} GHz: bare inner loops "
            + ", ".join(f"{t} {r / 1e12:.2f} Ttaps/s" for t, r in bound.items()),
            flush=True,
        )
        print(
            "uint8, by how differences are added up: "
            + ", ".join(f"{n} {r / 1e12:.2f}" for n, r in result["uint8_distances"].items())
            + f"; chosen is {select_distances(machine.device.target)}",
            flush=True,
        )
        measure_layers(machine, bound, rounds, quick, lambda row: keep("layers", row))
        measure_borders(machine, rounds, quick, lambda row: keep("borders", row))
    if only != "layers":
        measure_networks(machine, rounds, quick, lambda row: keep("networks", row))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="a few layers and rounds")
    parser.add_argument("--only", choices=("layers", "networks"))
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args(argv)
    try:
        check_cuda(0)
        result = environment()
        result["arguments"] = list(sys.argv[1:] if argv is None else argv)
        result["quick"] = options.quick
        path = options.json
        if path is None:
            RESULTS.mkdir(parents=True, exist_ok=True)
            path = RESULTS / file_name(result["device"])
        check_writable(path)
        measure_all(CudaMachine(), result, path, quick=options.quick, only=options.only)
    except AdderError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except WrongResultError as error:
        print(f"{parser.prog}: wrong result: {error}", file=sys.stderr)
        return 1
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
