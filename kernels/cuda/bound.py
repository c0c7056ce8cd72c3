"""The bound on what the kernels can reach: the rate of their bare inner loop, measured on a GPU."""

from __future__ import annotations

import numpy as np

from adder_onnx.kernels.cuda.compiler.nvrtc import compiler_options, source_folder

__all__ = ["LOOPS", "LOOP_EXTRA", "LOOP_TAPS", "loop_source", "measure"]

LOOPS = {"float32": "bare_loop<float>", "float16": "bare_loop<__half2>"}
"""Kernels by type."""

LOOP_TAPS = {"float32": 256, "float16": 512}
"""Taps that a thread does in one turn of the loop."""

LOOP_EXTRA = 528 / 512
"""All additions of a turn by those of its taps: so much higher is the rate of taps alone."""

_THREADS = 128
_TURNS = 4000
_REPEAT = 7


def loop_source() -> str:
    """The translation unit of the loops."""
    return (source_folder() / "bare_loop.cu").read_text()


def measure(type_: str) -> float:
    """Taps per second on CuPy's current device: the best of a few times."""
    import cupy

    module = cupy.RawModule(
        code=loop_source(), options=compiler_options(), name_expressions=(LOOPS[type_],)
    )
    kernel = module.get_function(LOOPS[type_])
    blocks = 8 * cupy.cuda.Device().attributes["MultiProcessorCount"]
    out = cupy.empty(blocks * _THREADS, cupy.float32)
    best = float("inf")
    for _ in range(_REPEAT + 1):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        kernel((blocks,), (_THREADS,), (out, np.int32(_TURNS)))
        end.record()
        end.synchronize()
        best = min(best, cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return float(blocks * _THREADS * _TURNS * LOOP_TAPS[type_] * LOOP_EXTRA / best)
