"""``enable_profiling`` of onnxruntime's ``SessionOptions``: a session's runs in one trace."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from adder_onnx.files import write_atomically
from adder_onnx.graph.plan import Step
from adder_onnx.runtime.times import RunTimes
from adder_onnx.runtime.trace import make_trace

__all__ = ["Profiler"]

_MAX_RUNS = 10_000
"""Of later ones nothing is kept."""

_logger = logging.getLogger(__name__)


class Profiler:
    """Collects the times of runs; may be used from several threads at once.

    Args:
        prefix: how the name of the file begins.

    Attributes:
        start_ns: when it began, as `time.monotonic_ns` counts.
    """

    def __init__(self, prefix: str) -> None:
        self.start_ns = time.monotonic_ns()
        self._prefix = prefix
        self._runs: list[tuple[float, RunTimes]] = []

    def add(self, times: RunTimes) -> None:
        """Takes the times of a run that ends now."""
        if len(self._runs) == _MAX_RUNS:
            _logger.warning("the profile holds %d runs: later ones are left out", _MAX_RUNS)
        if len(self._runs) <= _MAX_RUNS:
            end = (time.monotonic_ns() - self.start_ns) * 1e-9
            self._runs.append((end - times.seconds, times))

    def write(self, steps: Sequence[Step], device: str) -> str:
        """Writes the trace of the runs so far to a new file in the working folder; its name.

        Raises:
            AdderError: it cannot be written.
        """
        moment = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = Path(f"{self._prefix}_{moment}.json")
        for number in range(1, 10_000):
            if not path.exists():
                break
            path = Path(f"{self._prefix}_{moment}_{number}.json")
        runs = [("run", begin, times) for begin, times in self._runs[:_MAX_RUNS]]
        trace = make_trace(runs, steps, device)
        write_atomically(path, json.dumps(trace).encode())
        return str(path)
