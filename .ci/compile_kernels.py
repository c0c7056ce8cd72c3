"""Compiles all CUDA kernels with the CuPy, NVRTC and headers that are installed, without a GPU.

    compile_kernels.py ARCHITECTURE…

An architecture that this NVRTC does not know is left out, which is said; so are, of a later one,
kernels that were compiled for an earlier one. Needs nothing else:
adder_onnx's own `__init__` would ask for onnx and the native module.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    package = ModuleType("adder_onnx")
    package.__path__ = [str(ROOT / "adder_onnx")]
    sys.modules["adder_onnx"] = package

    import cupy
    from cupy_backends.cuda.libs import nvrtc

    from adder_onnx.kernels.cuda.compiler.nvrtc import (
        compile_cubin,
        compile_target,
        compiler_version,
    )
    from adder_onnx.kernels.cuda.launch.selection import kernels_on

    compiled: set[str] = set()
    for architecture in map(int, sys.argv[1:]):
        versions = f"CuPy {cupy.__version__}, NVRTC {compiler_version()}"
        if architecture not in nvrtc.getSupportedArchs():
            print(f"{versions}: sm_{architecture} is not known")
            continue
        start = time.perf_counter()
        target = compile_target(architecture)
        kernels = [k.expression for k in kernels_on(target) if k.expression not in compiled]
        image, _ = compile_cubin(kernels, architecture)
        compiled.update(kernels)
        seconds = time.perf_counter() - start
        print(
            f"{versions}: {len(kernels)} kernels for {target}, {len(image)} bytes, {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
