"""What follows a float adder node, against the epilogue of the integer node that it became.

A QLinearAdderConv of the name of an AdderConv has taken in what the plan of the float model fuses
into that, as far as its own epilogue says the same:

1. batch normalisation and additions and products per filter, which its scale and bias can be;
2. the addition of a residual, if it adds one;
3. Relu or Clip, if its lower bound is the same; an upper one is the end of its range.

The first of them for which that is not so, and those behind it, are not part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.inspection.difference.constants import (
    Constant,
    WeightDifference,
    compare_constants,
    constant_input,
)
from adder_onnx.inspection.difference.side import Side
from adder_onnx.ops import DOMAIN

__all__ = ["Folded", "fold"]

_SCALE, _BIAS, _Z = 4, 5, 6


@dataclass(frozen=True)
class Folded:
    """A float adder node with what was fused into it, and the integer node that it is.

    Attributes:
        a: the value of A that has the meaning of the integer node's output, or is it.
        b: the same in B.
        nodes: names of the float model's nodes that are part of the integer node.
        residuals: the values that A and B add, where one of them adds any.
        weights: scale and bias of the whole, where they differ.
    """

    a: ir.Value
    b: ir.Value
    nodes: tuple[str, ...]
    residuals: tuple[ir.Value | None, ir.Value | None]
    weights: tuple[WeightDifference, ...]


def fold(side_a: Side, a: ir.Node, side_b: Side, b: ir.Node) -> Folded | None:
    """What a float and an integer adder node make of each other; None of other nodes."""
    if a.domain != DOMAIN or b.domain != DOMAIN or a.op_type == b.op_type:
        return None
    is_integer = b.op_type == "QLinearAdderConv"
    side, plain, integer = (side_a, a, b) if is_integer else (side_b, b, a)
    adder = side.adders.get(plain.name or "")
    if adder is None:  # it takes what our kernels do not
        return Folded(a.outputs[0], b.outputs[0], (), (None, None), ())
    nodes = _taken_in(side, adder, integer)
    last = side.by_name[nodes[-1]] if nodes else plain
    value, result = last.outputs[0], integer.outputs[0]
    added = _residual_of(side, adder, nodes), _added(integer)
    weights = _epilogue(adder, integer, swapped=not is_integer)
    if is_integer:
        return Folded(value, result, nodes, added, weights)
    return Folded(result, value, nodes, (added[1], added[0]), weights)


def _taken_in(side: Side, adder: AdderNode, integer: ir.Node) -> tuple[str, ...]:
    """Names of the fused nodes that are part of the integer node, by the rules above."""
    low = integer.attributes.get_float("clip_min", -math.inf)
    taken: list[str] = []
    for name in adder.fused:
        node = side.by_name[name]
        if node.op_type in ("Relu", "Clip") and low != adder.clip_min:
            break
        if _adds_residual(node, adder) and _added(integer) is None:
            break
        taken.append(name)
    return tuple(taken)


def _adds_residual(node: ir.Node, adder: AdderNode) -> bool:
    names = [value.name for value in node.inputs if value is not None]
    return node.op_type == "Add" and adder.residual is not None and adder.residual in names


def _residual_of(side: Side, adder: AdderNode, taken: tuple[str, ...]) -> ir.Value | None:
    if any(_adds_residual(side.by_name[name], adder) for name in taken):
        return side.values.get(adder.residual or "")
    return None


def _added(integer: ir.Node) -> ir.Value | None:
    """What an integer node adds; a constant stands for nothing."""
    z = integer.inputs[_Z] if len(integer.inputs) > _Z else None
    return None if z is None or z.const_value is not None else z


def _epilogue(adder: AdderNode, integer: ir.Node, *, swapped: bool) -> tuple[WeightDifference, ...]:
    found = []
    for input_, array, place in (("scale", adder.scale, _SCALE), ("bias", adder.bias, _BIAS)):
        ours = Constant(f"{adder.name}.{input_}", np.asarray(array))
        theirs = constant_input(integer, place)
        pair = (theirs, ours) if swapped else (ours, theirs)
        difference = compare_constants(input_, *pair)
        if difference is not None:
            found.append(difference)
    return tuple(found)
