"""Nodes that onnxruntime does not refuse but ends the process with, or reads beyond memory.

1. A number that an operator takes as a tensor, such as the trip count of a Loop, is there: the
   tensor is not empty.
2. RandomUniform has bounds that are numbers and in order, RandomNormal a positive scale.
3. Unique along an axis has elements, and the window of STFT is a vector.

What shapes say only when a model runs is not seen here.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from adder_onnx.errors import ModelError

__all__ = ["check_survivable"]

_NUMBERS = {
    "Clip": (1, 2),
    "CumSum": (1,),
    "Dropout": (1, 2),
    "If": (0,),
    "Loop": (0, 1),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "TopK": (1,),
    "Trilu": (1,),
}
"""By operator, which of its inputs are numbers."""


def check_survivable(model: ir.Model) -> None:
    """Checks the rules, for the types and shapes that are known.

    Raises:
        ModelError: one does not hold; the message names the node.
    """
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        for i in _NUMBERS.get(node.op_type, ()):
            if i < len(node.inputs) and _is_empty(node.inputs[i]):
                raise _error(node, f"its input {i} is empty; expected a number")
        if node.op_type.startswith("Random"):
            _check_distribution(node)
        elif node.op_type == "Unique" and "axis" in node.attributes and _is_empty(node.inputs[0]):
            raise _error(node, "its input is empty")
        elif node.op_type == "STFT" and _rank(node, 2) not in (1, None):
            raise _error(node, "its window is no vector")


def _is_empty(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and 0 in value.shape


def _rank(node: ir.Node, i: int) -> int | None:
    """The rank of an input; None where it is absent or not known."""
    value = node.inputs[i] if i < len(node.inputs) else None
    return None if value is None or value.shape is None else value.shape.rank()


def _check_distribution(node: ir.Node) -> None:
    low, high = (node.attributes.get_float(n, d) for n, d in (("low", 0.0), ("high", 1.0)))
    mean, scale = (node.attributes.get_float(n, d) for n, d in (("mean", 0.0), ("scale", 1.0)))
    if not all(map(math.isfinite, (low, high, mean, scale))) or low > high or scale <= 0:
        raise _error(
            node, "its numbers are no distribution: low <= high and scale > 0, and all are finite"
        )


def _error(node: ir.Node, what: str) -> ModelError:
    return ModelError(f"node {node.name or node.outputs[0].name!r} ({node.op_type}): {what}")
