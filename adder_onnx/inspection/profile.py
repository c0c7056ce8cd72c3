"""Where the time of a run goes: by step of the plan and by adder node, over repeated runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Step
from adder_onnx.inspection.bounds import bandwidth_of, bound_of
from adder_onnx.inspection.report import Report
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.chain import type_inside
from adder_onnx.runtime.parts import parts_of
from adder_onnx.runtime.times import RunTimes, Span

__all__ = ["Event", "NodeProfile", "Profile", "StepProfile", "Times", "profile"]


@dataclass(frozen=True)
class Times:
    """Seconds over repeated runs.

    Attributes:
        median: half of the runs took less.
        p10: a tenth took less.
        p90: nine tenths took less.
    """

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Those of so many runs."""
        p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90)


@dataclass(frozen=True)
class StepProfile:
    """A step's times.

    Attributes:
        times: of the step.
        share: of the run.
    """

    times: Times
    share: float


@dataclass(frozen=True)
class NodeProfile:
    """An adder node's times, what is fused into it included.

    Attributes:
        times: of the node.
        share: of the run.
        type: of the tensors inside: ``float32``, ``float16`` or ``uint8``.
        taps_per_second: None where its taps are not counted.
        share_of_bound: of the rate of the bare inner loop; None where one is not known.
    """

    times: Times
    share: float
    type: str
    taps_per_second: float | None
    share_of_bound: float | None


@dataclass(frozen=True)
class Event:
    """A time in a run: that of a step, or of an adder node in it.

    Attributes:
        step: its number in the plan.
        node: the adder node's name; None for the step as a whole.
        start: seconds from the run's begin.
        seconds: how long it took.
    """

    step: int
    node: str | None
    start: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """What `profile` finds.

    Attributes:
        runs: how many were timed.
        device: where, ``cpu`` or ``cuda:N``.
        threads: that a run on the CPU could use.
        run: a run's time while its steps were timed.
        plain_run: a run's time while they were not; the two kinds take turns.
        steps: by the plan's steps.
        overhead: what is left of a run beside its steps: Python, and what onnxruntime and the
            kernels do not account for.
        nodes: by adder node.
        bound: taps per second of the bare inner loop on this device, by type of the tensors.
        bandwidth: bytes per second of this device's memory, read and written.
        timed: of each run whose steps were timed when it began, in seconds, and its times.
        last_run: the last of them, by steps and nodes, in the order in which they began.
    """

    runs: int
    device: str
    threads: int
    run: Times
    plain_run: Times
    steps: tuple[StepProfile, ...]
    overhead: StepProfile
    nodes: dict[str, NodeProfile]
    bound: dict[str, float]
    bandwidth: float
    timed: tuple[tuple[float, RunTimes], ...]
    last_run: tuple[Event, ...]


def profile(
    session: InferenceSession,
    report: Report,
    feed: Mapping[str, Any],
    runs: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Profile:
    """Times a session over repeated runs, after two that are not counted.

    Args:
        session: of ``report.model``.
        report: of the model.
        feed: the inputs.
        runs: how many.
        progress: is called with 1 after each.

    Returns:
        The times of steps and nodes, and what the bare inner loop would take.
    """
    for _ in range(2):
        session.profile(feed)
    plain, timed, begins = [], [], []
    begin = time.perf_counter()
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feed)
        plain.append(time.perf_counter() - start)
        timed.append(session.profile(feed))
        begins.append(time.perf_counter() - begin - timed[-1].seconds)
        progress(1)
    located = [_locate(session.plan.steps, times) for times in timed]
    total = Times.of([times.seconds for times in timed])
    steps = [
        _step([steps[i].seconds for steps, _ in located], total)
        for i in range(len(session.plan.steps))
    ]
    left = [
        times.seconds - sum(span.seconds for span in steps)
        for times, (steps, _) in zip(timed, located, strict=True)
    ]
    bound = bound_of(session.device, session.threads, _types(session), session.arithmetic)
    return Profile(
        runs,
        session.device,
        session.threads,
        total,
        Times.of(plain),
        tuple(steps),
        _step(left, total),
        _nodes(report, session, located, total, bound),
        bound,
        bandwidth_of(session.device, session.threads),
        tuple(zip(begins, timed, strict=True)),
        tuple(_events(session.plan.steps, located[-1])),
    )


def _events(steps: Sequence[Step], located: _Located) -> list[Event]:
    spans, nodes = located
    events = []
    for i, (step, span) in enumerate(zip(steps, spans, strict=True)):
        events.append(Event(i, None, span.start, span.seconds))
        if isinstance(step, ChainStep):
            own = ((node.name, nodes[node.name]) for node in step.nodes)
            events += [Event(i, name, at.start, at.seconds) for name, at in own]
    return sorted(events, key=lambda event: event.start)


def _types(session: InferenceSession) -> list[str]:
    """The types of tensors inside the plan's chains."""
    chains = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    return list(
        dict.fromkeys(type_inside(n.type, session.device) for chain in chains for n in chain.nodes)
    )


def _step(seconds: Sequence[float], total: Times) -> StepProfile:
    times = Times.of(seconds)
    return StepProfile(times, times.median / total.median)


_Located = tuple[list[Span], dict[str, Span]]
"""The span of each step of the plan, and of each adder node by name."""


def _locate(steps: Sequence[Step], times: RunTimes) -> _Located:
    spans: dict[int, Span] = {}
    nodes: dict[str, Span] = {}
    for part, part_times in zip(parts_of(steps), times.parts, strict=True):
        if isinstance(part, OnnxruntimeStep):
            spans[id(part)] = part_times.whole
            continue
        kernels = list(part_times.kernels)
        for step in part:
            if isinstance(step, ConversionStep):
                spans[id(step)] = kernels.pop(0)
            elif isinstance(step, ChainStep):
                own = kernels[: len(step.nodes)]
                del kernels[: len(step.nodes)]
                nodes.update(zip((node.name for node in step.nodes), own, strict=True))
                spans[id(step)] = Span(own[0].start, sum(span.seconds for span in own))
    return [spans[id(step)] for step in steps], nodes


def _nodes(
    report: Report,
    session: InferenceSession,
    located: Sequence[_Located],
    total: Times,
    bound: Mapping[str, float],
) -> dict[str, NodeProfile]:
    types = {
        node.name: type_inside(node.type, session.device)
        for step in session.plan.steps
        if isinstance(step, ChainStep)
        for node in step.nodes
    }
    taps = {
        node.name: node.cost.operations.taps if node.cost.operations else None
        for node in report.nodes
    }
    profiles = {}
    for name, type_ in types.items():
        times = Times.of([nodes[name].seconds for _, nodes in located])
        count = taps.get(name)
        rate = count / times.median if count and times.median > 0 else None
        profiles[name] = NodeProfile(
            times,
            times.median / total.median,
            type_,
            rate,
            rate / bound[type_] if rate is not None and bound.get(type_) else None,
        )
    return profiles
