"""What a graph's values take of memory, where their shapes say so."""

from __future__ import annotations

import math

import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.memory import require

__all__ = ["check_countable", "require_memory"]

_MOST_ELEMENTS = 2**58
"""Bytes are counted in int64."""


def check_countable(model: ir.Model) -> None:
    """Refuses a graph one of whose values has more elements than can be counted.

    Raises:
        ModelError: there is one; the message names it.
    """
    for value in _values(model):
        sizes = [max(abs(dim), 1) for dim in value.shape or () if isinstance(dim, int)]
        if math.prod(sizes) > _MOST_ELEMENTS:
            raise ModelError(f"value {value.name!r} has more than 2**58 elements")


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(v for node in model.graph.all_nodes() for v in node.outputs)]


def require_memory(model: ir.Model) -> None:
    """Refuses a graph one of whose values, inputs included, takes more memory than is allowed.

    Raises:
        ModelError: there is one; the message names it.
    """
    for value in _values(model):
        size = _bytes(value)
        if size is not None:
            shape = [dim for dim in value.shape or () if isinstance(dim, int)]
            require(size, f"value {value.name!r} of shape {shape}", ModelError)


def _bytes(value: ir.Value) -> int | None:
    """None where a size is not known, or the type has none."""
    if value.shape is None or not value.shape.is_static() or value.dtype is None:
        return None
    if value.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    count = math.prod(dim for dim in value.shape if isinstance(dim, int))
    return -(-count * value.dtype.bitwidth // 8)
