"""Where the time of a run goes."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["PartTimes", "Recorder", "RunTimes", "Span"]


@dataclass(frozen=True)
class Span:
    """A time that something took.

    Attributes:
        start: seconds from the run's begin.
        seconds: how long it took.
    """

    start: float
    seconds: float


@dataclass(frozen=True)
class PartTimes:
    """The times of one part of a plan: a sub-model, or a chain with its conversions.

    Attributes:
        whole: all of it, what Python does for it included.
        kernels: of a chain's conversions and adder nodes, in the order in which they run.
    """

    whole: Span
    kernels: tuple[Span, ...] = ()


@dataclass(frozen=True)
class RunTimes:
    """The times of one run.

    Attributes:
        seconds: of all of it, from call to result.
        parts: in the order of the plan.
    """

    seconds: float
    parts: tuple[PartTimes, ...]


class Recorder:
    """Takes the times of one run, as its parts follow each other."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._parts: list[PartTimes] = []

    def now(self) -> float:
        """Seconds from the run's begin."""
        return time.perf_counter() - self._begin

    def add(self, start: float, kernels: list[float]) -> None:
        """A part that began at ``start`` and ends now, with the seconds of its kernels.

        They have run without a pause until now, but for what Python does behind them.
        """
        end = self.now()
        spans = []
        at = end - sum(kernels)
        for seconds in kernels:
            spans.append(Span(at, seconds))
            at += seconds
        self._parts.append(PartTimes(Span(start, end - start), tuple(spans)))

    def finish(self) -> RunTimes:
        """The times of the run, which ends now."""
        return RunTimes(self.now(), tuple(self._parts))
