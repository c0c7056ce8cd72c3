"""What must hold of a model before a library looks into it, which it might not survive.

1. Text is UTF-8, graphs are not nested too deeply, and there are no more messages than anyone has
   time for (`messages`).
2. Every type is one that onnx has.
3. A tensor's elements are as many as its shape says, or lie in another file.
4. A node has no more than a few thousand inputs.
5. An attribute is there once in its node, and refers to one of a function only inside of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.graph.checks.messages import Found, messages
from adder_onnx.memory import require

__all__ = ["check_size", "check_well_formed"]

_MOST_BYTES = (1 << 31) - (1 << 20)
"""A tensor must be smaller: onnx's checker takes no larger messages."""

_MOST_ELEMENTS = 2**58
"""Of a tensor: bytes are counted in int64."""

_MOST_INPUTS = 5_000
"""Of a node: onnx_ir takes a time that grows with their square where constants are among them."""

_TYPES = {type_.value: type_ for type_ in ir.DataType if type_ != ir.DataType.UNDEFINED}

_T = onnx.TensorProto
_FIELDS = {
    _T.FLOAT: "float_data",
    _T.COMPLEX64: "float_data",
    _T.DOUBLE: "double_data",
    _T.COMPLEX128: "double_data",
    _T.INT64: "int64_data",
    _T.UINT32: "uint64_data",
    _T.UINT64: "uint64_data",
    _T.STRING: "string_data",
}
"""Where elements are that are not bytes; those of other types are in int32_data."""


def check_well_formed(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Checks the rules.

    Returns:
        The tensors whose elements lie in other files.

    Raises:
        ModelError: one does not hold; the message says where.
    """
    external = []
    for found in messages(model):
        check = _CHECKS.get(type(found.message))
        if check is not None:
            check(found)
        if isinstance(found.message, onnx.TensorProto) and _is_external(found.message):
            external.append(found.message)
    return external


def check_size(tensor: onnx.TensorProto, size: int) -> None:
    """Refuses a tensor of too many bytes.

    Raises:
        ModelError: it is one.
    """
    if size >= _MOST_BYTES:
        raise ModelError(f"tensor {tensor.name!r} has 2 GiB or more; onnx takes smaller ones")


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _check_tensor(found: Found) -> None:
    tensor = found.message
    what = f"tensor {tensor.name!r}"
    type_ = _known_type(tensor.data_type, what)
    dims = list(tensor.dims)
    _check_shape(what, dims)
    if _is_external(tensor):
        return
    count = math.prod(dims)
    if tensor.HasField("raw_data"):
        if type_ == ir.DataType.STRING:
            raise ModelError(f"{what} has its text in raw_data; expected string_data")
        expected, unit = -(-count * type_.bitwidth // 8), "bytes"
        there = len(tensor.raw_data)
        check_size(tensor, there)
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        expected, unit = _entries(type_, count), f"entries in {field}"
        there = len(getattr(tensor, field))
    if there != expected:
        raise ModelError(
            f"{what} of shape {dims} and type {type_.name} has {there} {unit}; expected {expected}"
        )


def _entries(type_: ir.DataType, count: int) -> int:
    """How many numbers a tensor's elements are where they are not bytes."""
    if type_ == ir.DataType.STRING:
        return count
    if type_ in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    # Several small ones share a byte, which is one number.
    return count if type_.bitwidth >= 8 else -(-count * type_.bitwidth // 8)


def _check_sparse_tensor(found: Found) -> None:
    sparse = found.message
    what = f"sparse tensor {sparse.values.name!r}"
    _check_shape(what, list(sparse.dims))
    # Whoever takes it makes all its elements.
    type_ = _known_type(sparse.values.data_type, what)
    size = 1 if type_ == ir.DataType.STRING else type_.bitwidth // 8
    require(math.prod(sparse.dims) * size, what, ModelError)


def _check_shape(what: str, dims: list[int]) -> None:
    # NumPy multiplies sizes beside a zero, too.
    if any(dim < 0 for dim in dims) or math.prod(max(dim, 1) for dim in dims) > _MOST_ELEMENTS:
        raise ModelError(f"{what} has the shape {dims}; sizes are at least 0, and less than 2**58")


def _check_type(found: Found) -> None:
    _known_type(found.message.elem_type, "a value")


def _check_map(found: Found) -> None:
    _known_type(found.message.key_type, "the key of a map")


def _known_type(number: int, what: str) -> ir.DataType:
    if number not in _TYPES:
        raise ModelError(f"{what} has the element type {number}, which onnx does not know")
    return _TYPES[number]


def _check_node(found: Found) -> None:
    node = found.message
    if len(node.input) > _MOST_INPUTS:
        raise ModelError(
            f"node {_called(node)} has {len(node.input):,} inputs, more than {_MOST_INPUTS:,}"
        )
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"node {_called(node)} has the attribute {twice} more than once")
    for attribute in node.attribute:
        if attribute.ref_attr_name and not found.in_function:
            raise ModelError(
                f"the attribute {attribute.name} of node {_called(node)} refers to "
                f"{attribute.ref_attr_name!r} of a function, but the node is in none"
            )


def _called(node: Any) -> str:
    """A node as a message calls it: one without a name by its first output."""
    name = node.name or next(iter(node.output), "")
    return f"{name!r} ({node.op_type})"


_CHECKS: dict[type, Callable[[Found], None]] = {
    onnx.NodeProto: _check_node,
    onnx.SparseTensorProto: _check_sparse_tensor,
    onnx.TensorProto: _check_tensor,
    onnx.TypeProto.Map: _check_map,
    onnx.TypeProto.SparseTensor: _check_type,
    onnx.TypeProto.Tensor: _check_type,
}
