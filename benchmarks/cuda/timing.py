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

_WAIT_CYCLES = 200_000
"""For Python to queue a call: 100 us at 2 GHz."""

_ATTEMPTS = 4
_LONG = 0.05
"""Seconds beside which what Python takes for its part does not count."""

_CLOCK_CYCLES = 1 << 25


class Timer(Protocol):
    """Times calls that start work on a GPU."""

    def seconds(self, call: Call, times: int) -> float:
        """Seconds that the GPU takes for ``times`` calls."""


class EventTimer:
    """By CUDA events on the null stream, which torch's default stream is too.

    Calls are queued behind a kernel that waits, so that Python's part does not show. Where the wait
    was over before all calls were queued, they are timed again behind a longer one.

    Args:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._kernel = cupy.RawKernel(_WAIT, "wait")

    def seconds(self, call: Call, times: int) -> float:
        wait = _WAIT_CYCLES * times
        for _ in range(_ATTEMPTS):
            seconds, late = self._queued(call, times, wait)
            if not late or seconds > _LONG:
                break
            wait *= 2
        return seconds

    def clock(self) -> float:
        """Cycles per second of a multiprocessor, counted by itself."""
        self.wait(1)  # compiles it
        seconds, _ = self._queued(lambda: self.wait(_CLOCK_CYCLES), 1, _WAIT_CYCLES)
        return _CLOCK_CYCLES / seconds

    def _queued(self, call: Call, times: int, wait: int) -> tuple[float, bool]:
        """Seconds of the calls, and whether the GPU began before all of them were queued."""
        cuda = self._cupy.cuda
        start, end = cuda.Event(), cuda.Event()
        self.wait(wait)
        start.record()
        for _ in range(times):
            call()
        late = bool(start.done)
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(start, end)) / 1e3, late

    def wait(self, cycles: int) -> None:
        """Starts a kernel on the current stream that only takes its time."""
        self._kernel((1,), (1,), (np.int64(cycles),))


class WallTimer:
    """By the clock, from the first call to the GPU's rest.

    Args:
        synchronize: waits for the GPU's rest.
    """

    def __init__(self, synchronize: Call) -> None:
        self._synchronize = synchronize

    def seconds(self, call: Call, times: int) -> float:
        self._synchronize()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self._synchronize()
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
