"""What no kernel can be faster than on this machine: its bare inner loop, and its memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from adder_onnx.kernels.cpu import inner_loop_rate, select_isa
from adder_onnx.memory import limit

__all__ = ["bandwidth_of", "bound_of"]

_BOUND_SECONDS = 0.5

_COPIED = 1 << 26
"""Bytes that are copied, so many more than most caches hold; less where less memory is allowed."""

_REPEAT = 5


def bound_of(
    device: str, threads: int, types: Sequence[str], arithmetic: str = "fast"
) -> dict[str, float]:
    """Taps per second of the bare inner loop, which is run for that.

    Args:
        device: ``cpu`` or ``cuda:N``.
        threads: that run it on a CPU.
        types: of the tensors inside chains: ``float32``, ``float16`` or ``uint8``.
        arithmetic: ``fast`` or ``exact``, on a CPU.

    Returns:
        The rates by type.
    """
    if device != "cpu":
        from adder_onnx.kernels.cuda.bound import measure
        from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu

        gpu = CupyGpu(int(device.partition(":")[2]))
        with gpu.using(gpu.new_stream()):
            return {type_: measure(type_) for type_ in types}
    return {
        type_: inner_loop_rate(type_, select_isa(), threads, _BOUND_SECONDS, arithmetic)
        for type_ in types
    }


def bandwidth_of(device: str, threads: int) -> float:
    """Bytes per second that memory takes and gives while it is copied: the best of a few times.

    Args:
        device: ``cpu`` or ``cuda:N``.
        threads: that copy on a CPU, each its own part.

    Returns:
        The bytes that are read and those that are written, by the time.
    """
    if device != "cpu":
        from adder_onnx.kernels.cuda.bound import measure_bandwidth
        from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu

        gpu = CupyGpu(int(device.partition(":")[2]))
        with gpu.using(gpu.new_stream()):
            return measure_bandwidth()
    size = min(_COPIED, limit() // 8)
    sources = np.array_split(np.ones(size, np.uint8), threads)
    targets = np.array_split(np.zeros(size, np.uint8), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_REPEAT):
            start = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            best = min(best, time.perf_counter() - start)
    return 2 * size / best
