"""Timing calls that start work on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

__all__ = ["Call", "EventTimer", "Timer", "WallTimer", "summary", "take_turns"]

Call = Callable[[], object]

_WAIT = """
extern "C" __global__ void wait(long long cycles) {
  const long long start = clock64();
  while (clock64() - start < cycles) {}
}
"""


class Timer(Protocol):
    """Times calls that start work on a GPU."""

    def seconds(self, call: Call, times: int) -> float:
        """Seconds that the GPU takes for ``times`` calls."""


class EventTimer:
    """By CUDA events on the null stream, which torch's default stream is too."""

    def __init__(self) -> None:
        import cupy

        self._cupy: Any = cupy
        self._wait = cupy.RawKernel(_WAIT, "wait")

    def seconds(self, call: Call, times: int) -> float:
        cupy = self._cupy
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        # Long enough for Python to queue all calls: 100 us each at 2 GHz.
        self._wait((1,), (1,), (np.int64(200_000 * times),))
        start.record()
        for _ in range(times):
            call()
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3


class WallTimer:
    """By the clock, from the first call to the GPU's rest."""

    def seconds(self, call: Call, times: int) -> float:
        import cupy

        device = cupy.cuda.Device()
        device.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            call()
        device.synchronize()
        return time.perf_counter() - start


def take_turns(
    contenders: dict[str, Call], timer: Timer, rounds: int, least: float = 2e-3
) -> dict[str, list[float]]:
    """Seconds of a call of each contender, in rounds; each is timed over ``least`` seconds."""
    times = {}
    for name, call in contenders.items():
        timer.seconds(call, 2)
        times[name] = min(max(int(least / timer.seconds(call, 1)), 1), 100)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            found[name].append(timer.seconds(call, times[name]) / times[name])
    return found


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and spread."""
    low, high = np.percentile(seconds, (10, 90))
    return {"median": statistics.median(seconds), "p10": float(low), "p90": float(high)}
