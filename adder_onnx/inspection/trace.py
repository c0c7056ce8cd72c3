"""A profile as a trace that Perfetto and chrome://tracing open.

Source of the format: *Trace Event Format* of the Catapult project; times are microseconds, an event
of phase X has a begin and a length, one of phase M names a track.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Step
from adder_onnx.inspection.profile import Profile
from adder_onnx.runtime.parts import parts_of
from adder_onnx.runtime.times import Span

__all__ = ["trace"]

_TRACKS = ("run", "parts", "kernels")


def trace(profile: Profile, steps: Sequence[Step]) -> dict[str, Any]:
    """The last run of a profile: the run, its parts, and their conversions and adder nodes."""
    events = [_name(i, track) for i, track in enumerate(_TRACKS)]
    events.append(_event("run", 0, Span(0, profile.last.seconds), {"device": profile.device}))
    for part, times in zip(parts_of(steps), profile.last.parts, strict=True):
        if isinstance(part, OnnxruntimeStep):
            details = {"nodes": len(part.nodes), "inputs": part.inputs, "outputs": part.outputs}
            events.append(_event("onnxruntime", 1, times.whole, details))
            continue
        events.append(_event("chain", 1, times.whole, {"steps": len(part)}))
        kernels = iter(times.kernels)
        for step in part:
            if isinstance(step, ConversionStep):
                title = "to NHWC" if step.to_kernels else "to NCHW"
                events.append(_event(title, 2, next(kernels), {"value": step.value}))
            elif isinstance(step, ChainStep):
                events += [
                    _event(node.name, 2, next(kernels), {"fused": node.fused})
                    for node in step.nodes
                ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


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
