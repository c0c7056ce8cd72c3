"""Runs as a trace that Perfetto and chrome://tracing open.

Source of the format: *Trace Event Format* of the Catapult project; times are microseconds, an event
of phase X has a begin and a length, one of phase M names a track.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Step
from adder_onnx.runtime.parts import parts_of
from adder_onnx.runtime.times import RunTimes, Span

__all__ = ["make_trace"]

_TRACKS = ("run", "parts", "kernels")


def make_trace(
    runs: Iterable[tuple[str, float, RunTimes]], steps: Sequence[Step], device: str
) -> dict[str, Any]:
    """Runs, their parts, and their conversions and adder nodes.

    Args:
        runs: what each is called, when it began, in seconds, and its times.
        steps: of the plan.
        device: where they ran.
    """
    events = [_name(i, track) for i, track in enumerate(_TRACKS)]
    for name, begin, times in runs:
        events += _run_events(name, begin, times, steps, device)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _run_events(
    name: str, begin: float, run: RunTimes, steps: Sequence[Step], device: str
) -> list[dict[str, Any]]:
    def event(name: str, track: int, span: Span, details: dict[str, Any]) -> dict[str, Any]:
        return _event(name, track, Span(begin + span.start, span.seconds), details)

    events = [event(name, 0, Span(0, run.seconds), {"device": device})]
    for part, times in zip(parts_of(steps), run.parts, strict=True):
        if isinstance(part, OnnxruntimeStep):
            details = {"nodes": len(part.nodes), "inputs": part.inputs, "outputs": part.outputs}
            events.append(event("onnxruntime", 1, times.whole, details))
            continue
        events.append(event("chain", 1, times.whole, {"steps": len(part)}))
        kernels = iter(times.kernels)
        for step in part:
            if isinstance(step, ConversionStep):
                title = "to NHWC" if step.to_kernels else "to NCHW"
                events.append(event(title, 2, next(kernels), {"value": step.value}))
            elif isinstance(step, ChainStep):
                events += [
                    event(node.name, 2, next(kernels), {"fused": node.fused}) for node in step.nodes
                ]
    return events


def _event(name: str, track: int, span: Span, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "ph": "X",
        "ts": span.start * 1e6,
        "dur": span.seconds * 1e6,
        "pid": 0,
        "tid": track,
        "args": details,
    }


def _name(track: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}
