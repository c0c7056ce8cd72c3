"""The bound on what the kernels can reach: the rate of their bare inner loop, measured on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adder_onnx.kernels.cuda.compiler.modules import load_kernels
from adder_onnx.kernels.cuda.compiler.nvrtc import compile_target, source_folder
from adder_onnx.kernels.cuda.launch.selection import runs_on, select_distances
from adder_onnx.kernels.cuda.launch.variants import DISTANCES

__all__ = ["LOOPS", "Loop", "loop_source", "measure", "measure_bandwidth", "measure_distances"]

_WORDS = 256
"""Of taps, that a thread does in one turn of a loop."""

_THREADS = 128
_TURNS = 4000
_REPEAT = 7

_COPIED = 1 << 29
"""Bytes, so many more than the caches of GPUs hold."""


@dataclass(frozen=True)
class Loop:
    """A bare inner loop.

    Attributes:
        expression: its C++ name.
        word_taps: taps in a word.
        word_instructions: that add up a word, at least, on the GPUs that it is chosen for.
    """

    expression: str
    word_taps: int
    word_instructions: int

    @property
    def taps(self) -> int:
        """That a thread does in one turn."""
        return _WORDS * self.word_taps

    @property
    def extra(self) -> float:
        """All additions of a turn by those of its taps: so much higher is that of taps alone."""
        own = _WORDS * self.word_instructions
        return (own + 16) / own


LOOPS = {
    "float32": Loop("bare_loop<Floats>", 1, 2),
    "float16": Loop("bare_loop<Halves>", 2, 2),
    "Fused": Loop("bare_loop<Bytes<Fused>>", 4, 1),
    "Dotted": Loop("bare_loop<Bytes<Dotted>>", 4, 2),
    "Doubled": Loop("bare_loop<Bytes<Doubled>>", 4, 2),
}
"""By type, and for uint8 by the way in which differences are added up."""


def loop_source() -> str:
    """The translation unit of the loops."""
    return (source_folder() / "bare_loop.cu").read_text()


def measure(type_: str) -> float:
    """Taps per second on CuPy's current device: the best of a few times.

    Args:
        type_: ``float32``, ``float16``, or ``uint8``: in the way that is chosen for the device.
    """
    return _measure(LOOPS[select_distances(_target()) if type_ == "uint8" else type_])


def measure_distances() -> dict[str, float]:
    """Taps per second of each way in which the current device can add up differences of uint8.

    Where another one than the chosen is the fastest, `select_distances` is wrong for the device.
    """
    return {name: _measure(LOOPS[name]) for name in DISTANCES if runs_on(name, _target())}


def _target() -> str:
    import cupy

    return compile_target(int(cupy.cuda.Device().compute_capability))


def _measure(loop: Loop) -> float:
    import cupy

    kernel = load_kernels(loop_source(), [loop.expression])[loop.expression]
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
    return float(blocks * _THREADS * _TURNS * loop.taps * loop.extra / best)


def measure_bandwidth() -> float:
    """Bytes per second, read and written, of a copy in the current device's memory."""
    import cupy

    size = min(_COPIED, int(cupy.cuda.Device().mem_info[0]) // 4)
    source, target = cupy.ones(size, cupy.uint8), cupy.empty(size, cupy.uint8)
    best = float("inf")
    for _ in range(_REPEAT + 1):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        cupy.copyto(target, source)
        end.record()
        end.synchronize()
        best = min(best, cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return 2 * size / best
