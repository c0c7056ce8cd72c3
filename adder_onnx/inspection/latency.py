"""Latency and throughput of whole runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.inspection.histogram import Histogram
from adder_onnx.runtime import InferenceSession

__all__ = ["Latency", "measure_latency"]

_WARM_UP = 3
_LEAST_RUNS = 10


@dataclass(frozen=True)
class Latency:
    """Times of runs that follow each other without a pause.

    Attributes:
        runs: how many.
        median_ms: half of them took less milliseconds.
        p90_ms: nine tenths took less.
        p99_ms: 99 of 100 took less.
        seconds: of all runs together.
        histogram: of their times in milliseconds.
    """

    runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    seconds: float
    histogram: Histogram


def measure_latency(
    session: InferenceSession,
    feed: Mapping[str, Any],
    seconds: float,
    wait: Callable[[], object] = lambda: None,
) -> Latency:
    """Runs a session over and over.

    Args:
        session: what is run.
        feed: its inputs; results come back as their kind.
        seconds: for how long, at least; ten runs are made in any case, and three before.
        wait: is called after each run, and belongs to its time: for results on a GPU, which a run
            does not wait for.
    """
    for _ in range(_WARM_UP):
        session.run(None, feed)
        wait()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < _LEAST_RUNS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        session.run(None, feed)
        wait()
        times.append(time.perf_counter() - start)
    elapsed = time.perf_counter() - begin
    milliseconds = np.array(times) * 1e3
    median, p90, p99 = (float(value) for value in np.percentile(milliseconds, (50, 90, 99)))
    return Latency(len(times), median, p90, p99, elapsed, Histogram.of(milliseconds))
