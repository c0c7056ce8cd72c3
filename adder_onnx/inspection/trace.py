"""A profile as a trace that Perfetto and chrome://tracing open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adder_onnx.graph.plan import Step
from adder_onnx.inspection.profile import Profile
from adder_onnx.runtime.trace import make_trace

__all__ = ["trace"]


def trace(profile: Profile, steps: Sequence[Step]) -> dict[str, Any]:
    """The last run of a profile: the run, its parts, and their conversions and adder nodes."""
    return make_trace([(0.0, profile.last)], steps, profile.device)
