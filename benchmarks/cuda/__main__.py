"""Times the CUDA kernels, by layer and by network, beside what a GPU offers instead of them.

    python -m benchmarks.cuda [--quick] [--only layers|networks] [--json FILE]

Contenders for a layer: our kernel in float32 and float16; a naive kernel with one thread for each
output; torch.cdist on the unfolded image, as the reference implementation evaluates the layer; and
cuDNN's convolution of the same shape through torch, in float32 without and with TF32 and in
float16, in the faster of both layouts. They take turns; times are of CUDA events around several
calls that were queued behind a kernel which waits, so that Python's part does not show; inputs
rotate over more memory than the L2 cache holds. Printed are medians in 10^12 taps (or
multiply-accumulates) per second, and the share of the bound: the rate of the bare inner loop in
registers, measured in the same run. Before a layer is timed, outputs are compared with float64.

Networks are timed by the clock, from call to synchronized result, with inputs on the GPU.

The result goes to ``benchmarks/results/<device>.json`` unless --json says otherwise;
``python -m benchmarks.cuda.table`` makes the table in docs/gpu.md from what lies there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from adder_onnx.errors import AdderError
from adder_onnx.evaluation.environment import gpu_name, versions
from adder_onnx.files import write_atomically
from adder_onnx.kernels.cuda.bound import measure
from adder_onnx.kernels.cuda.variants import TYPES
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.layers import measure_layers
from benchmarks.cuda.networks import measure_networks
from benchmarks.cuda.timing import EventTimer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = 1


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    import cupy
    import torch

    smi = subprocess.run(
        [
            "nvidia-smi",
            "--query-gpu=driver_version,clocks.sm,clocks.max.sm",
            "--format=csv,noheader",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    capability = cupy.cuda.Device().compute_capability
    return {
        "benchmark": "cuda",
        "schema": SCHEMA,
        "device": gpu_name("cuda:0"),
        "compute_capability": f"{capability[:-1]}.{capability[-1]}",
        "driver_and_clocks": " ".join(smi.stdout.split()),
        "versions": {**versions("cuda:0"), "torch": torch.__version__},
        "commit": git.stdout.strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def file_name(device: str) -> str:
    """The result's name: ``nvidia-h100-80gb-hbm3.json``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def main() -> int:
    """Runs the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few layers and rounds")
    parser.add_argument("--only", choices=("layers", "networks"))
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args()
    try:
        check_cuda(0)
        rounds = 3 if options.quick else 11
        result = environment() | {"quick": options.quick, "layers": [], "networks": []}
        path = options.json or RESULTS / file_name(result["device"])
        path.parent.mkdir(parents=True, exist_ok=True)

        def keep(section: str, row: Any) -> None:
            result[section].append(row)
            write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())

        if options.only != "networks":
            timer = EventTimer()
            result["bound"] = {type_: measure(type_) for type_ in TYPES}
            print(
                f"{result['device']}: bare inner loops "
                + ", ".join(f"{t} {r / 1e12:.2f} Ttaps/s" for t, r in result["bound"].items())
            )
            measure_layers(
                timer, result["bound"], rounds, options.quick, lambda row: keep("layers", row)
            )
        if options.only != "layers":
            measure_networks(rounds, options.quick, lambda row: keep("networks", row))
    except AdderError as error:
        print(f"benchmarks.cuda: error: {error}", file=sys.stderr)
        return 2
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
