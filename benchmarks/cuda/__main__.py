"""Times the CUDA kernels, by layer and by network, beside what a GPU offers instead of them.

    python -m benchmarks.cuda --check
    python -m benchmarks.cuda [--quick] [--only layers|networks] [--json FILE]

With --check, whether all works on a GPU that is new: in less than two minutes every kernel against
float64, the shipped network, CUDA graphs on and off, streams, threads, where torch has CUDA its
arrays and training, and the rates of a few layers; a line for each, and a verdict, for a report.
It needs no torch.

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

The exit status is 0, 1 where a check fails or a kernel's output is wrong, and 2 where there is no
GPU or the result cannot be written.

JSON, schema 1: ``device``, ``compute_capability``, ``multiprocessors``, ``driver_and_clocks``
(driver, clock, highest clock as nvidia-smi prints them, or ``unknown``), ``versions``, ``commit``
(empty outside of a repository), ``date``, ``arguments``, ``bound`` (taps per second by type),
``uint8_distances`` (the same by the way in which differences of uint8 are added up), ``sm_clock``
(Hz, measured beside the bound), and lists of rows, ``layers``, ``borders`` and ``networks``. All
``seconds`` are ``{"median", "p10", "p90"}`` of one call. A row that was put in from a result of
another commit has a ``commit`` of its own. In a layer's row, ``cdist_batch`` below
``batch`` says that torch.cdist, for want of memory, was timed with fewer images and its time scaled
up.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from adder_onnx.errors import AdderError
from adder_onnx.files import check_writable
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.check.report import report
from benchmarks.cuda.conditions import ROOT, environment
from benchmarks.cuda.machine import CudaMachine, CupyMachine
from benchmarks.cuda.rounding import WrongResultError

RESULTS = ROOT / "benchmarks" / "results"


def file_name(device: str) -> str:
    """The result's name: ``nvidia-h100-80gb-hbm3.json``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="a few layers and rounds")
    parser.add_argument("--only", choices=("layers", "networks"))
    parser.add_argument("--json", type=Path, help="where the result goes")
    parser.add_argument("--check", action="store_true", help="whether all works on this GPU")
    options = parser.parse_args(argv)
    if options.check and (options.quick or options.only or options.json):
        parser.error("--check takes no other option")
    try:
        check_cuda(0)
        result = environment()
        if options.check:
            return 0 if report(CupyMachine(), result) else 1
        from benchmarks.cuda.measurement import measure_all  # needs torch, and --check does not

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
