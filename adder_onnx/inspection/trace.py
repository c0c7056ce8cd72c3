"""A profile as a trace that Perfetto and chrome://tracing open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adder_onnx.graph.plan import Step
from adder_onnx.inspection.profile import Profile
from adder_onnx.runtime.trace import make_trace

__all__ = ["trace"]


def trace(profile: Profile, steps: Sequence[Step]) -> dict[str, Any]:
    """All runs whose steps were timed, each with its parts, conversions and adder nodes.

    They stand where they were: between two of them lies the one that was not timed by step.
    """
    runs = [(f"run {i}", begin, times) for i, (begin, times) in enumerate(profile.timed, 1)]
    return make_trace(runs, steps, profile.device)
