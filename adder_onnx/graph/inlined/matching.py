"""What the readers of inlined function bodies have in common."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from adder_onnx.graph.inlined.expressions import Expression
from adder_onnx.graph.inlined.values import Values, is_copy

__all__ = ["DifferentError", "all_uses", "check_reshape", "require", "sole_use"]


class DifferentError(Exception):
    """A graph is not what is left of a function body; the message says where it differs."""


def require(condition: bool, difference: str) -> None:
    """Raises DifferentError unless the condition holds."""
    if not condition:
        raise DifferentError(difference)


def sole_use(value: ir.Value) -> tuple[ir.Node, ir.Value]:
    """The one node that uses a value or a copy of it, and what of these it uses.

    Raises:
        DifferentError: there is none in the value's graph, or another use, or the value is an
            output of the graph.
    """
    found = all_uses(value)
    require(len(found) == 1, "an inner value is used elsewhere, too")
    return found[0]


def all_uses(value: ir.Value) -> list[tuple[ir.Node, ir.Value]]:
    """The nodes that use a value or a copy of it, and what of these each uses.

    Raises:
        DifferentError: one is not in the value's graph, or the value is an output of the graph.
    """
    producer = value.producer()
    found, copies = [], [value]
    for copy in copies:
        require(not copy.is_graph_output(), "an inner value is used elsewhere, too")
        for use in copy.uses():
            inside = producer is not None and use.node.graph is producer.graph
            require(inside, "an inner value is used inside control flow")
            if is_copy(use.node) and use.idx == 0:
                copies.append(use.node.outputs[0])
            else:
                found.append((use.node, copy))
    return found


def check_reshape(values: Values, node: ir.Node, shape: Sequence[Expression]) -> bool:
    """Checks that a Reshape gives a shape; returns whether it leaves a dimension to be inferred.

    A zero, without ``allowzero``, is the input's dimension; -1 is what is left, hence the expected
    one where the others are and the number of elements is.

    Raises:
        DifferentError: it gives another shape.
        UnknownValueError: its shape is not understood.
    """
    target = values.expressions(node.inputs[1])
    require(len(target) == len(shape), "it is reshaped to another rank")
    keeps_zeros = bool(node.attributes.get_int("allowzero", 0))
    before = () if keeps_zeros or Expression() not in target else values.shape(node.inputs[0])
    for axis, (given, expected) in enumerate(zip(target, shape, strict=True)):
        dim = before[axis] if given == Expression() and axis < len(before) else given
        require(dim in (expected, Expression(-1)), "it is reshaped to another shape")
    inferred = target.count(Expression(-1))
    require(inferred < 2, "it is reshaped to an unknown shape")
    return inferred > 0
