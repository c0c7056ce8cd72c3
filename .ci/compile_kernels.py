"""Compiles all CUDA kernels with the CuPy, NVRTC and headers that are installed, without a GPU.

    compile_kernels.py ARCHITECTURE

Needs nothing else: adder_onnx's own `__init__` would ask for onnx and the native module.
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

    from adder_onnx.kernels.cuda.compiler.nvrtc import (
        compile_cubin,
        compile_target,
        compiler_version,
    )
    from adder_onnx.kernels.cuda.launch.selection import kernels_on

    start = time.perf_counter()
    architecture = int(sys.argv[1])
    kernels = kernels_on(compile_target(architecture))
    image, _ = compile_cubin([kernel.expression for kernel in kernels], architecture)
    print(
        f"CuPy {cupy.__version__}, NVRTC {compiler_version()}: {len(kernels)} kernels for "
        f"sm_{architecture}, {len(image)} bytes, {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
