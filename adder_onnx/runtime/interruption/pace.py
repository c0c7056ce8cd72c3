"""Which runs of a session are known to be short."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from adder_onnx.graph.plan import OnnxruntimeStep, Plan
from adder_onnx.runtime.interruption.process_end import in_main_thread

__all__ = ["Pace", "may_be_endless"]

_SHORT_SECONDS = 0.25
"""What a signal may wait for."""

_MAX_SHAPES = 256
"""Combinations of input shapes that are remembered."""

Shapes = tuple[tuple[int, ...] | None, ...]
"""Of a run's inputs; None for what is no array."""


class Pace:
    """How long runs take, by the shapes of their inputs.

    Args:
        endless: whether a run may take any time, whatever the shapes.
    """

    def __init__(self, *, endless: bool) -> None:
        self._endless = endless
        self._short: set[Shapes] = set()

    def must_be_apart(self, shapes: Shapes) -> bool:
        """Whether another thread is to make this run, so that a signal can interrupt it.

        Signals are the main thread's. There it is so for the first run of any shapes, and as long
        as the last one took long.
        """
        return in_main_thread() and (self._endless or None in shapes or shapes not in self._short)

    def add(self, shapes: Shapes, seconds: float) -> None:
        """Takes how long a run took."""
        if seconds >= _SHORT_SECONDS:
            self._short.discard(shapes)
        elif shapes not in self._short:
            if len(self._short) >= _MAX_SHAPES:
                self._short.clear()
            self._short.add(shapes)


def may_be_endless(plan: Plan) -> bool:
    """Whether a run may take any time: a ``Loop`` ends when its values say so."""
    models = [step.model for step in plan.steps if isinstance(step, OnnxruntimeStep)]
    return any(
        _has_loop(nodes)
        for model in models
        for nodes in (model.graph.node, *(function.node for function in model.functions))
    )


def _has_loop(nodes: Iterable[onnx.NodeProto]) -> bool:
    return any(
        node.op_type == "Loop"
        or any(
            _has_loop(graph.node)
            for attribute in node.attribute
            for graph in (attribute.g, *attribute.graphs)
        )
        for node in nodes
    )
