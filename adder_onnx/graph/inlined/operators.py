"""The standard operators by which a function body of ours computes its constants and shapes.

Each takes `Values` and a node, and gives the array of the node's output. What is not in the body,
before or after constant folding, raises UnknownValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.inlined.expressions import Expression, UnknownValueError

if TYPE_CHECKING:
    from adder_onnx.graph.inlined.values import Values

__all__ = ["MOST_INTEGERS", "OPERATORS", "check_broadcast", "is_symbolic", "of_objects"]

MOST_INTEGERS = 64
"""Shapes, pads and the like are shorter."""

MOST_FLOATS = 1 << 15
"""A table of outputs is made of less (`output_tables`)."""

_FLOAT32 = np.dtype(np.float32)

Operator = Callable[["Values", ir.Node], NDArray[Any]]


def of_objects(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    array = np.empty((), object)
    array[()] = value
    return array


def is_symbolic(array: NDArray[Any]) -> bool:
    return array.dtype == object and all(isinstance(e, Expression) for e in array.flat)


def check_broadcast(*arrays: NDArray[Any], most: int = MOST_INTEGERS) -> None:
    """Refuses what would make a large array of small ones, of more than ``most`` elements."""
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError as error:
        raise UnknownValueError("shapes that do not fit") from error
    if int(np.prod(shape)) > max(most, *(a.size for a in arrays)):
        raise UnknownValueError("an array that is too large")


def _elementwise(
    operation: str | None, numeric: Callable[..., NDArray[Any]] | None = None
) -> Operator:
    """An operator on integers by the algebra, or on floats of one type by NumPy."""

    def run(values: Values, node: ir.Node) -> NDArray[Any]:
        arrays = [values.array(value) for value in node.inputs]
        if operation is not None and all(map(is_symbolic, arrays)):
            return values.apply(operation, *arrays)
        types = {a.dtype for a in arrays}
        if numeric is None or len(types) != 1 or types.pop().kind != "f" or len(arrays) != 2:
            raise UnknownValueError
        check_broadcast(*arrays, most=MOST_FLOATS)
        with np.errstate(all="ignore"):
            return np.asarray(numeric(*arrays))

    return run


_remainder = _elementwise("remainder")


def _mod(values: Values, node: ir.Node) -> NDArray[Any]:
    if node.attributes.get_int("fmod", 0):
        raise UnknownValueError
    return _remainder(values, node)


def _cast(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    to = ir.DataType(node.attributes.get_int("to", 0))
    if is_symbolic(array):
        if to in (ir.DataType.INT32, ir.DataType.INT64):
            return array
        array = np.asarray(values.integers(node.inputs[0]), np.int64).reshape(array.shape)
    if to == ir.DataType.UINT8:
        return _to_bytes(array)
    targets = (ir.DataType.BOOL, ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
    if to not in targets or array.dtype.kind not in "bifu":
        raise UnknownValueError
    with np.errstate(all="ignore"):
        return array.astype(to.numpy())


def _to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats that are bytes; others become whatever a processor makes of them."""
    if array.dtype.kind != "f" or not np.isin(array, np.arange(256)).all():
        raise UnknownValueError
    return array.astype(np.uint8)


def _round(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    if array.dtype.kind != "f":
        raise UnknownValueError
    return np.asarray(np.rint(array))


def _greater(values: Values, node: ir.Node) -> NDArray[Any]:
    arrays = [values.array(value) for value in node.inputs]
    if all(map(is_symbolic, arrays)):
        arrays = [
            np.reshape(np.asarray(values.integers(value), np.int64), array.shape)
            for value, array in zip(node.inputs, arrays, strict=True)
        ]
    elif {a.dtype.kind for a in arrays} != {"f"}:
        raise UnknownValueError
    check_broadcast(*arrays, most=MOST_FLOATS)
    return np.asarray(np.greater(*arrays))


def _range(values: Values, node: ir.Node) -> NDArray[Any]:
    """From 0 by steps of 1, in float32."""
    start, limit, delta = (values.array(value) for value in node.inputs)
    known = all(a.dtype == np.float32 and a.ndim == 0 for a in (start, limit, delta))
    if not known or (start.item(), delta.item()) != (0, 1) or not 0 <= limit.item() <= MOST_FLOATS:
        raise UnknownValueError
    return np.arange(math.ceil(limit.item()), dtype=np.float32)


def _reduce_sum(values: Values, node: ir.Node) -> NDArray[Any]:
    """Of rows of integers as floats, whose sums are exact in whatever order."""
    array = values.array(node.inputs[0])
    axes = values.integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if array.dtype != np.float32 or array.ndim != 2 or axes not in ([1], [-1]):
        raise UnknownValueError
    exact = (np.rint(array) == array).all() and np.abs(array).sum(dtype=np.float64) < 1 << 24
    keeps = bool(node.attributes.get_int("keepdims", 1))
    if keeps or not exact:
        raise UnknownValueError
    return np.asarray(array.sum(axis=1))


def _concat(values: Values, node: ir.Node) -> NDArray[Any]:
    arrays = [values.array(value) for value in node.inputs]
    total = sum(a.size for a in arrays)
    is_one_kind = all(map(is_symbolic, arrays)) or {a.dtype for a in arrays} == {_FLOAT32}
    if total > MOST_INTEGERS or any(a.ndim != 1 for a in arrays) or not is_one_kind:
        raise UnknownValueError
    joined: NDArray[Any] = np.concatenate(arrays)
    return joined


def _shape(values: Values, node: ir.Node) -> NDArray[Any]:
    dims = values.shape(node.inputs[0])
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(dims))
    chosen = dims[start:end]
    result = np.empty(len(chosen), object)
    result[:] = chosen
    return result


def _slice(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    starts, ends = (values.integers(value) for value in node.inputs[1:3])
    given = [values.integers(value) for value in node.inputs[3:]]
    axes = given[0] if given else list(range(len(starts)))
    steps = given[1] if len(given) > 1 else [1] * len(starts)
    if array.ndim != 1 or axes not in ([0], [-1]) or steps != [1] or len(starts) != 1:
        raise UnknownValueError
    return array[starts[0] : ends[0]]


def _gather(values: Values, node: ir.Node) -> NDArray[Any]:
    array, indices = values.array(node.inputs[0]), values.integers(node.inputs[1])
    if array.ndim != 1 or any(not -array.size <= i < array.size for i in indices):
        raise UnknownValueError
    shape = values.array(node.inputs[1]).shape
    return of_objects(array[np.reshape(np.asarray(indices, np.int64), shape)])


def _reshape(values: Values, node: ir.Node) -> NDArray[Any]:
    array, shape = values.array(node.inputs[0]), values.integers(node.inputs[1])
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise UnknownValueError("shapes that do not fit") from error


def _unsqueeze(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    axes = values.integers(node.inputs[1])
    try:
        return np.expand_dims(array, tuple(axes))
    except ValueError as error:
        raise UnknownValueError("axes that do not fit") from error


def _squeeze(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    if array.size != 1 or array.ndim != 1:
        raise UnknownValueError
    return array.reshape(())


def _where(values: Values, node: ir.Node) -> NDArray[Any]:
    condition, yes, no = (values.array(value) for value in node.inputs)
    are_integers = is_symbolic(yes) and is_symbolic(no)
    if condition.dtype != np.bool_ or not (are_integers or yes.dtype == no.dtype == np.float32):
        raise UnknownValueError
    check_broadcast(condition, yes, no)
    chosen = np.where(condition, yes, no)
    return of_objects(chosen) if are_integers else chosen


def _or(values: Values, node: ir.Node) -> NDArray[Any]:
    a, b = (values.array(value) for value in node.inputs)
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise UnknownValueError
    check_broadcast(a, b)
    return np.asarray(np.logical_or(a, b))


def _reduce_prod(values: Values, node: ir.Node) -> NDArray[Any]:
    array = values.array(node.inputs[0])
    if len(node.inputs) > 1 or "axes" in node.attributes or not is_symbolic(array):
        raise UnknownValueError
    product = values.apply("multiply", of_objects(Expression(1)), *map(of_objects, array.flat))
    keep = node.attributes.get_int("keepdims", 1)
    return product.reshape((1,) * array.ndim) if keep else product


def _one_hot(values: Values, node: ir.Node) -> NDArray[Any]:
    """TfIdfVectorizer as the body has it: which of a few strings a string is."""
    array = values.array(node.inputs[0])
    pool = list(node.attributes.get_strings("pool_strings", ()))
    as_in_body = (
        node.attributes.get_string("mode", "") == "TF"
        and node.attributes.get_int("max_gram_length", 0) == 1
        and node.attributes.get_int("min_gram_length", 0) == 1
        and node.attributes.get_ints("ngram_counts", ()) == (0,)
        and node.attributes.get_ints("ngram_indexes", ()) == tuple(range(len(pool)))
        and "weights" not in node.attributes
    )
    if not as_in_body or array.shape != (1,) or array.dtype.kind != "S":
        raise UnknownValueError
    text = array.item().decode()
    return np.array([text == entry for entry in pool], np.float32)


OPERATORS: dict[str, Operator] = {
    "Add": _elementwise("add", np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _elementwise("divide"),
    "Gather": _gather,
    "Greater": _greater,
    "Max": _elementwise("maximum", np.maximum),
    "Min": _elementwise(None, np.minimum),
    "Mod": _mod,
    "Mul": _elementwise("multiply", np.multiply),
    "Or": _or,
    "Pow": _elementwise(None, np.power),
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "ReduceSum": _reduce_sum,
    "Reshape": _reshape,
    "Round": _round,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _elementwise("subtract", np.subtract),
    "TfIdfVectorizer": _one_hot,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
