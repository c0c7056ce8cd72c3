"""The reals that a value's integers mean, where the graph says that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import constant
from adder_onnx.ops import DOMAIN

__all__ = ["Meaning", "meaning_of"]

_GIVEN = {
    (DOMAIN, "QLinearAdderConv"): (9, 10),
    ("", "QuantizeLinear"): (1, 2),
    ("", "QLinearConv"): (6, 7),
    ("", "QLinearMatMul"): (6, 7),
}
"""Nodes that give integers, with the inputs that are scale and zero point of what they give."""

_KEEPING = ("Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose output has the scale and zero point of their first input."""


@dataclass(frozen=True)
class Meaning:
    """What the integers of a tensor mean: ``(q - zero_point) * scale``.

    Attributes:
        scale: of all of it.
        zero_point: of all of it.
    """

    scale: float
    zero_point: int

    def reals(self, integers: NDArray[Any]) -> NDArray[np.float64]:
        """The reals."""
        return (np.asarray(integers, np.float64) - self.zero_point) * self.scale


def meaning_of(value: ir.Value) -> Meaning | None:
    """What a value's integers mean.

    Told by the node that gives it, behind others that only move elements, or by a DequantizeLinear
    that takes it. None where neither says it, with one constant scale and zero point.
    """
    source: ir.Value | None = value
    while source is not None:
        producer = source.producer()
        if producer is None:
            break
        domain = "" if producer.domain == "ai.onnx" else producer.domain
        places = _GIVEN.get((domain, producer.op_type))
        if places is not None:
            return _parameters(producer, *places)
        if domain or producer.op_type not in _KEEPING:
            break
        source = producer.inputs[0]
    for use in value.uses():
        if use.idx == 0 and use.node.op_type == "DequantizeLinear":
            return _parameters(use.node, 1, 2)
    return None


def _parameters(node: ir.Node, scale_at: int, zero_point_at: int) -> Meaning | None:
    scale = constant(node.inputs[scale_at])
    if len(node.inputs) <= zero_point_at or node.inputs[zero_point_at] is None:
        zero_point: NDArray[Any] | None = np.zeros((), np.uint8)
    else:
        zero_point = constant(node.inputs[zero_point_at])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    return Meaning(float(scale.item()), int(zero_point.item()))
