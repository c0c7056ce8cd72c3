"""Reading a QLinearAdderConv from what its inlined function body has become.

An AdderConv that was read from a loop (`Layer`) belongs to a QLinearAdderConv where its input is a
uint8 value as float32, perhaps less a zero point of 0 to 255, and its weight consists of integers
that are uint8 values less the same zero point; or may do, where one of these is not constant. It is
read as one where all of this holds; otherwise it must stay a loop, whose arithmetic is that of the
body bit by bit, which a float AdderConv with a fused epilogue would not keep:

1. The zero point and the weight are constant.
2. The sum is followed by, in this order, and each of them used by nothing but the next and not an
   output of the graph,
   a. Mul by a constant float32 of one value per filter: the scale;
   b. Add of a constant float32 of one value per filter: the bias;
   c. Add of the residual: a uint8 value as float32, less a zero point, times a scale, both
      constant, of the sum's shape; or of a constant zero;
   d. Max with a constant, 0 or -inf;
   e. Div by a constant: the output's scale;
   f. either Round;
   g. Add of a constant of 0 to 255: the output's zero point;
   h. Max with 0, then Min with 2^bits - 1, bits being 2 to 8; or Clip to these bounds;
   i. Cast to uint8;
   j. or, instead of f to i, Mul by 2; Ceil and Floor, whose outputs are added; Add of four times
      the output's zero point; a Where that makes 0 of what is not above 0; Min with 1020; Cast to
      an integer; and Gather from a constant table, which is that of some bits or levels.
3. What does nothing may be missing: a zero point of 0, a residual, a lower bound of -inf, and a, b
   or a scale that is 1, where the constant has one element. Operands of Mul, Add, Max and Min may
   be exchanged.

The input's scale is part of a: it becomes 1, which leaves every product as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.inlined.expressions import UnknownValueError
from adder_onnx.graph.inlined.layer import Layer
from adder_onnx.graph.inlined.matching import DifferentError, all_uses, require, sole_use
from adder_onnx.graph.inlined.output_tables import LAST_PLACE, Outputs, read_table
from adder_onnx.graph.inlined.values import Values, is_standard, source

__all__ = ["IntegerLayer", "read_integer_layer"]


@dataclass(frozen=True)
class IntegerLayer:
    """A QLinearAdderConv that was read.

    Attributes:
        inputs: by number: values, or arrays that become constants.
        bits: the output is at most 2**bits - 1.
        clip_min: lower bound of the activation, -inf or 0.
        levels: the only values of the output; none for all.
        output: the uint8 value that it gives.
        last: the node that gives it.
    """

    inputs: tuple[ir.Value | NDArray[Any], ...]
    bits: int
    clip_min: float
    levels: tuple[int, ...]
    output: ir.Value
    last: ir.Node


def read_integer_layer(values: Values, layer: Layer) -> IntegerLayer | None:
    """The QLinearAdderConv that a layer is part of; None for a layer of floats.

    Raises:
        DifferentError: it is part of one, but that is not understood.
        UnknownValueError: the same, seen while computing a value.
    """
    found = _bytes_less_zero_point(values, layer.x)
    if found is None:
        return None
    x, zero_point = found
    weight = _weight(values, layer, zero_point)
    if weight is None:
        return None
    require(len(layer.outputs) == 1, "the sum is used more than once")
    tail = _Tail(values, layer)
    filters = weight.shape[0]

    scale = tail.per_filter("Mul", filters, 1.0)
    bias = tail.per_filter("Add", filters, 0.0)
    residual = tail.residual()
    clip_min = tail.operand("Max", -math.inf)
    require(clip_min in (0, -math.inf), "the activation has another bound")
    y_scale = tail.operand("Div", 1.0)
    y_zero_point, outputs, last = _by_table(tail) if tail.goes_on("Mul") else _by_rounding(tail)
    require(last.outputs[0].dtype == ir.DataType.UINT8, "the result is not cast to uint8")
    return IntegerLayer(
        (
            *(x, weight, np.float32(1), np.uint8(zero_point), scale, bias),
            *residual,
            *(np.float32(y_scale), np.uint8(y_zero_point)),
        ),
        outputs.bits,
        clip_min,
        outputs.levels,
        last.outputs[0],
        last,
    )


def _by_rounding(tail: _Tail) -> tuple[int, Outputs, ir.Node]:
    """The zero point, what outputs there are, and the last node; by rules f to i."""
    tail.unary("Round")
    zero_point = tail.operand("Add", 0.0)
    require(zero_point in range(256), "the output's zero point is not of uint8")
    bottom, top = tail.bounds()
    is_range = bottom == 0 and top in {2**bits - 1 for bits in range(2, 9)}
    require(is_range, "the result is not clipped to 0 and 2^bits - 1")
    return int(zero_point), Outputs(int(top + 1).bit_length() - 1), tail.unary("Cast")


def _by_table(tail: _Tail) -> tuple[int, Outputs, ir.Node]:
    """The same by rule j."""
    factor = tail.operand("Mul", None)
    require(factor == 2, "the quotient is not doubled")
    tail.ceiling_and_floor()
    offset = 0.0 if tail.forks() else tail.operand("Add", None)
    require(offset in range(0, 4 * 256, 4), "the output's zero point is not of uint8")
    tail.above_zero()
    last_place = tail.operand("Min", None)
    require(last_place == LAST_PLACE, "places are not bounded")
    place = tail.unary("Cast")
    is_integer = place.outputs[0].dtype in (ir.DataType.INT32, ir.DataType.INT64)
    require(is_integer, "a place is no integer")
    table, last = tail.table()
    zero_point = int(offset) // 4
    return zero_point, read_table(table, zero_point), last


def _bytes_less_zero_point(values: Values, value: ir.Value) -> tuple[ir.Value, int] | None:
    """A uint8 value and a zero point, of which a float32 value is the difference, if it is one."""
    node = source(value).producer()
    subtracted = None
    if node is not None and is_standard(node, "Sub"):
        subtracted = node.inputs[1]
        node = source(node.inputs[0]).producer()
    if node is None or not is_standard(node, "Cast"):
        return None
    before = source(node.inputs[0])
    if before.dtype != ir.DataType.UINT8 or node.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    zero_point = np.zeros(1) if subtracted is None else values.array(subtracted)
    is_byte = zero_point.size == 1 and zero_point.item() in range(256)
    return (before, int(zero_point.item())) if is_byte else None


def _weight(values: Values, layer: Layer, zero_point: int) -> NDArray[np.uint8] | None:
    """The weight's bytes; None where it does not consist of such."""
    weight = values.array(layer.w) if isinstance(layer.w, ir.Value) else layer.w
    shifted = weight + weight.dtype.type(zero_point)
    with np.errstate(invalid="ignore"):
        as_bytes = shifted.astype(np.uint8)
    return as_bytes if np.array_equal(as_bytes, shifted) else None


def _scalar(array: NDArray[Any]) -> float:
    is_scalar = array.dtype == np.float32 and array.size == 1 and array.ndim < 5
    require(is_scalar, "an operand is not one float32")
    return float(array.item())


class _Tail:
    """What follows a sum, read node by node; each method takes the next one if it fits."""

    def __init__(self, values: Values, layer: Layer) -> None:
        self._values = values
        self._shape = layer.shape
        self._value = layer.outputs[0]

    def per_filter(self, op_type: str, filters: int, neutral: float) -> NDArray[np.float32]:
        """The constant operand, (M, 1, 1), as (M,); the neutral element where it is missing."""
        node, other = self._next(op_type)
        array = self._constant(other) if node is not None else None
        if node is None or array is None:
            return np.full(filters, neutral, np.float32)
        if array.shape not in ((filters, 1, 1), (1, filters, 1, 1)):
            return np.full(filters, neutral, np.float32)
        self._value = node.outputs[0]
        return array.reshape(filters)

    def residual(self) -> tuple[ir.Value | NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Z, its scale and its zero point."""
        node, other = self._next("Add")
        nothing = (np.asarray(np.uint8(0)), np.asarray(np.float32(1)), np.asarray(np.uint8(0)))
        if node is None or other is None:
            return nothing
        array = self._constant(other)
        if array is not None:
            require(_scalar(array) == 0, "the residual is a constant")
            self._value = node.outputs[0]
            return nothing
        scale, shifted = 1.0, other
        product = source(other).producer()
        if product is not None and is_standard(product, "Mul"):
            scale, shifted = self._times_constant(product)
        found = _bytes_less_zero_point(self._values, shifted)
        require(found is not None, "the residual is not a uint8 value")
        assert found is not None
        z, zero_point = found
        require(self._values.shape(z) == self._shape, "the residual may have another shape")
        self._value = node.outputs[0]
        return z, np.asarray(np.float32(scale)), np.asarray(np.uint8(zero_point))

    def operand(self, op_type: str, missing: float | None) -> float:
        """The constant operand of the next node; ``missing`` where that is another."""
        node, other = self._next(op_type)
        array = self._constant(other) if node is not None else None
        if node is None or array is None:
            require(missing is not None, f"there is no {op_type}")
            assert missing is not None
            return missing
        self._value = node.outputs[0]
        return _scalar(array)

    def bounds(self) -> tuple[float, float]:
        """The constants of Max and Min, or of Clip."""
        node, used = sole_use(self._value)
        if not is_standard(node, "Clip"):
            return self.operand("Max", None), self.operand("Min", None)
        require(len(node.inputs) == 3 and node.inputs[0] is used, "the result is not clipped")
        self._value = node.outputs[0]
        lower, upper = (_scalar(self._values.array(value)) for value in node.inputs[1:])
        return lower, upper

    def goes_on(self, op_type: str) -> bool:
        """Whether the next node is of this operator."""
        return self._next(op_type)[0] is not None

    def forks(self) -> bool:
        """Whether the value has more than one use."""
        return len(all_uses(self._value)) > 1

    def ceiling_and_floor(self) -> None:
        """Ceil and Floor of the value, and the sum of both."""
        nodes = {node.op_type: node for node, _ in all_uses(self._value)}
        both = [nodes[op] for op in ("Ceil", "Floor") if is_standard(nodes.get(op), op)]
        require(len(nodes) == len(both) == 2, "there is no Ceil and Floor")
        total, other = (sole_use(node.outputs[0])[0] for node in both)
        require(total is other and is_standard(total, "Add"), "Ceil and Floor are not added")
        self._value = total.outputs[0]

    def above_zero(self) -> None:
        """A Where that takes what is above 0, and 0 for all else."""
        nodes = {node.op_type: node for node, _ in all_uses(self._value)}
        above, chosen = nodes.get("Greater"), nodes.get("Where")
        is_pair = is_standard(above, "Greater") and is_standard(chosen, "Where")
        require(is_pair and len(nodes) == 2, "what is no number is not treated")
        assert above is not None
        assert chosen is not None
        user, condition = sole_use(above.outputs[0])
        is_asked = user is chosen and chosen.inputs[0] is condition
        require(is_asked, "another comparison decides")
        for zero in (above.inputs[1], chosen.inputs[2]):  # the other operand is the value, then
            require(_scalar(self._values.array(zero)) == 0, "it is not compared with 0")
        self._value = chosen.outputs[0]

    def table(self) -> tuple[NDArray[Any], ir.Node]:
        """The constant that the next node gathers from, by the value, and this node."""
        node, used = sole_use(self._value)
        is_gather = is_standard(node, "Gather") and node.inputs[1] is used
        require(is_gather and not node.attributes.get_int("axis", 0), "there is no Gather")
        self._value = node.outputs[0]
        return self._values.array(node.inputs[0]), node

    def unary(self, op_type: str) -> ir.Node:
        """The next node, which must be of this operator."""
        node, _ = self._next(op_type)
        require(node is not None, f"there is no {op_type}")
        assert node is not None
        self._value = node.outputs[0]
        return node

    def _next(self, op_type: str) -> tuple[ir.Node | None, ir.Value | None]:
        """The node that uses the value, if it is of this operator, and its other operand."""
        node, used = sole_use(self._value)
        if not is_standard(node, op_type):
            return None, None
        commutes = op_type in ("Add", "Max", "Min", "Mul")
        require(len(node.inputs) < 3, "it takes more operands")
        if node.inputs[0] is used:
            return node, node.inputs[1] if len(node.inputs) > 1 else None
        require(commutes, f"it is the wrong operand of {op_type}")
        return node, node.inputs[0]

    def _times_constant(self, node: ir.Node) -> tuple[float, ir.Value]:
        for constant, other in (node.inputs, tuple(reversed(node.inputs))):
            array = self._constant(constant)
            if array is not None and other is not None:
                return _scalar(array), other
        raise DifferentError("the residual's scale is not constant")

    def _constant(self, value: ir.Value | None) -> NDArray[Any] | None:
        try:
            return self._values.array(value)
        except UnknownValueError:
            return None
