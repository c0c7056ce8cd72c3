"""What a graph's values take of memory, where their shapes say so."""

from __future__ import annotations

import math

import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.memory import require

__all__ = ["require_memory"]


def require_memory(model: ir.Model) -> None:
    """Refuses a graph one of whose values, inputs included, takes more memory than is allowed.

    Raises:
        ModelError: there is one; the message names it.
    """
    values = [*model.graph.inputs, *(v for node in model.graph.all_nodes() for v in node.outputs)]
    for value in values:
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
    return -(-math.prod(map(int, value.shape)) * value.dtype.bitwidth // 8)
