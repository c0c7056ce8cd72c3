"""What the values of a graph are, as far as constants and shapes tell.

Integers (int32 and int64) become expressions of the sizes of other values; floats, booleans and
strings that are computed from constants become NumPy arrays. Only what a function body of ours
needs, before and after constant folding, is understood; everything else is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import constant
from adder_onnx.graph.inlined.expressions import Algebra, Expression, UnknownValueError
from adder_onnx.graph.inlined.operators import (
    MOST_INTEGERS,
    OPERATORS,
    check_broadcast,
    is_symbolic,
    of_objects,
)

__all__ = ["Values", "is_copy", "is_standard", "source"]

_DEEPEST = 100
"""A body is some 35 nodes deep; what is deeper might exhaust the interpreter's stack."""

_SHAPE_KEPT = (
    *("BatchNormalization", "Cast", "CastLike", "Clip", "DequantizeLinear", "Dropout", "Identity"),
    *("LeakyRelu", "QuantizeLinear", "Relu", "Round"),
)
_BROADCAST = ("Add", "Div", "Max", "Min", "Mul", "Sub")


def is_standard(node: ir.Node | None, *op_types: str) -> bool:
    """Whether a node is there, and is one of these standard operators."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def source(value: ir.Value | None) -> ir.Value:
    """The value that a value is a copy of, itself if of none.

    Raises:
        UnknownValueError: there is no value: an optional input is absent.
    """
    while value is not None:
        node = value.producer()
        if node is None or not is_copy(node) or value is not node.outputs[0]:
            return value
        value = node.inputs[0]
    raise UnknownValueError("an input is absent")


def is_copy(node: ir.Node) -> bool:
    """Whether a node's first output is its first input.

    Identity is one, a Cast to the same type, and Dropout in inference mode.
    """
    if is_standard(node, "Cast", "CastLike"):
        before = node.inputs[0]
        return (
            before is not None
            and before.dtype is not None
            and before.dtype == node.outputs[0].dtype
        )
    if is_standard(node, "Dropout"):
        training = node.inputs[2] if len(node.inputs) > 2 else None
        flag = constant(training)
        return training is None or (flag is not None and not flag.any())
    return is_standard(node, "Identity")


class Values:
    """Arrays and shapes of a graph's values, each computed once."""

    def __init__(self) -> None:
        self.algebra = Algebra()
        self._arrays: dict[ir.Value, NDArray[Any] | None] = {}
        self._shapes: dict[ir.Value, tuple[Expression, ...] | None] = {}
        self._depth = 0

    def array(self, value: ir.Value | None) -> NDArray[Any]:
        """A value's elements: expressions for integers.

        Raises:
            UnknownValueError: the value is absent or not understood.
        """
        value = source(value)
        if value not in self._arrays:
            self._arrays[value] = self._deeper(self._compute, value)
        array = self._arrays[value]
        if array is None:
            raise UnknownValueError(f"value {value.name!r} is not understood")
        return array

    def integers(self, value: ir.Value | None) -> list[int]:
        """A value's elements, where they are constant integers.

        Raises:
            UnknownValueError: they are not.
        """
        array = self.array(value)
        if not is_symbolic(array) or not all(e.is_constant for e in array.flat):
            raise UnknownValueError("an integer is not constant")
        return [e.constant for e in array.flat]

    def expressions(self, value: ir.Value | None) -> list[Expression]:
        """A value's elements, where they are integers.

        Raises:
            UnknownValueError: they are not.
        """
        array = self.array(value)
        if not is_symbolic(array):
            raise UnknownValueError("a value is not of integers")
        return list(array.flat)

    def shape(self, value: ir.Value | None) -> tuple[Expression, ...]:
        """A value's dimensions.

        Raises:
            UnknownValueError: the value is absent, or its rank is unknown.
        """
        value = source(value)
        if value not in self._shapes:
            self._shapes[value] = self._deeper(self._find_shape, value)
        shape = self._shapes[value]
        if shape is None:
            raise UnknownValueError(f"the shape of value {value.name!r} is unknown")
        return shape

    def shape_of_rank(self, value: ir.Value, rank: int) -> tuple[Expression, ...]:
        """The dimensions of a value that is known to have as many."""
        try:
            return self.shape(value)
        except UnknownValueError:
            dims = tuple(self.algebra.atom("dimension", value, axis) for axis in range(rank))
            self.define_shape(value, dims)
            return dims

    def define_shape(self, value: ir.Value, shape: Sequence[Expression]) -> None:
        """Says what the shape of a value is, so that what is computed from it has one, too."""
        self._shapes[value] = tuple(shape)

    def define_counter(self, value: ir.Value) -> Expression:
        """Makes a scalar, such as a loop's counter, an atom."""
        atom = self.algebra.atom("counter", value)
        self._arrays[value] = of_objects(atom)
        return atom

    def apply(self, operation: str, *arrays: NDArray[Any]) -> NDArray[Any]:
        """An operation of the algebra, with NumPy's broadcasting."""
        function = np.frompyfunc(getattr(self.algebra, operation), 2, 1)
        result = arrays[0]
        for other in arrays[1:]:
            check_broadcast(result, other)
            result = of_objects(function(result, other))
        return result

    def _deeper(self, find: Callable[[ir.Value], Any], value: ir.Value) -> Any:
        """What ``find`` finds, or None."""
        if self._depth >= _DEEPEST:
            return None
        self._depth += 1
        try:
            return find(value)
        except UnknownValueError:
            return None
        finally:
            self._depth -= 1

    def _compute(self, value: ir.Value) -> NDArray[Any]:
        known = constant(value)
        if known is not None:
            return _with_expressions(known)
        node = value.producer()
        operator = OPERATORS.get(node.op_type) if node is not None else None
        if node is None or operator is None or not is_standard(node, node.op_type):
            raise UnknownValueError
        return operator(self, node)

    def _find_shape(self, value: ir.Value) -> tuple[Expression, ...] | None:
        known = constant(value)
        if known is not None:
            return tuple(map(Expression, known.shape))
        derived = self._derive_shape(value)
        if value.shape is None:
            return derived
        if derived is None or len(derived) != value.shape.rank():
            return tuple(self._dimension(value, axis) for axis in range(value.shape.rank()))
        return tuple(
            Expression(declared) if isinstance(declared, int) else found
            for declared, found in zip(value.shape, derived, strict=True)
        )

    def _dimension(self, value: ir.Value, axis: int) -> Expression:
        assert value.shape is not None
        declared = value.shape[axis]
        if isinstance(declared, int):
            return Expression(declared)
        if declared.value is not None:
            return self.algebra.atom("symbol", declared.value)
        return self.algebra.atom("dimension", value, axis)

    def _derive_shape(self, value: ir.Value) -> tuple[Expression, ...] | None:
        node = value.producer()
        if node is None or value is not node.outputs[0]:
            return None
        try:
            if is_standard(node, *_SHAPE_KEPT):
                return self.shape(node.inputs[0])
            if is_standard(node, *_BROADCAST):
                return _broadcast([self.shape(v) for v in node.inputs])
            if is_standard(node, "Pad") and len(node.inputs) < 4:
                return self._padded_shape(node)
        except UnknownValueError:
            pass
        return None

    def _padded_shape(self, node: ir.Node) -> tuple[Expression, ...]:
        add = self.algebra.add
        pads = self.expressions(node.inputs[1])
        image = self.shape(node.inputs[0])
        if len(pads) != 2 * len(image):
            raise UnknownValueError
        ends = zip(pads[: len(image)], pads[len(image) :], strict=True)
        return tuple(add(size, add(*pair)) for size, pair in zip(image, ends, strict=True))


def _with_expressions(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype not in (np.int32, np.int64):
        return array
    if array.size > MOST_INTEGERS:
        raise UnknownValueError
    result = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        result[index] = Expression(int(array[index]))
    return result


def _broadcast(shapes: Sequence[tuple[Expression, ...]]) -> tuple[Expression, ...]:
    rank = max(map(len, shapes))
    padded = [(Expression(1),) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for dims in zip(*padded, strict=True):
        others = {dim for dim in dims if dim != Expression(1)}
        numbers = {dim for dim in others if dim.is_constant}
        # One that is not known must be 1 or equal to a number beside it.
        chosen = numbers or others or {Expression(1)}
        if len(chosen) != 1:
            raise UnknownValueError("dimensions that may be different")
        result.append(chosen.pop())
    return tuple(result)
