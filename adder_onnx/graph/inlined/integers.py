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
   f. Round;
   g. Add of a constant of 0 to 255: the output's zero point;
   h. Max with 0, then Min with 2^bits - 1, bits being 2 to 8; or Clip to these bounds;
   i. Cast to uint8.
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
from adder_onnx.graph.inlined.matching import DifferentError, require, sole_use
from adder_onnx.graph.inlined.values import Values, is_standard, source

__all__ = ["IntegerLayer", "read_integer_layer"]


@dataclass(frozen=True)
class IntegerLayer:
    """A QLinearAdderConv that was read.

    Attributes:
        inputs: by number: values, or arrays that become constants.
        bits: the output is at most 2**bits - 1.
        clip_min: lower bound of the activation, -inf or 0.
        output: the uint8 value that it gives.
        last: the node that gives it.
    """

    inputs: tuple[ir.Value | NDArray[Any], ...]
    bits: int
    clip_min: float
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
    tail.unary("Round")
    y_zero_point = tail.operand("Add", 0.0)
    require(y_zero_point in range(256), "the output's zero point is not of uint8")
    bottom, top = tail.bounds()
    is_range = bottom == 0 and top in {2**bits - 1 for bits in range(2, 9)}
    require(is_range, "the result is not clipped to 0 and 2^bits - 1")
    cast = tail.unary("Cast")
    require(cast.outputs[0].dtype == ir.DataType.UINT8, "the result is not cast to uint8")
    return IntegerLayer(
        (
            *(x, weight, np.float32(1), np.uint8(zero_point), scale, bias),
            *residual,
            *(np.float32(y_scale), np.uint8(int(y_zero_point))),
        ),
        int(top + 1).bit_length() - 1,
        clip_min,
        cast.outputs[0],
        cast,
    )


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
