"""Constant parameters of QuantizeLinear, DequantizeLinear, the Clip before and a table between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import constant

__all__ = [
    "Lookup",
    "clip_bounds",
    "is_private_clip",
    "lookup_of",
    "quantization_parameters",
    "quantized",
]


def quantization_parameters(node: ir.Node) -> tuple[float, int] | None:
    """Scale and zero point, where both are constants, one for the whole tensor."""
    scale, zero_point = constant(node.inputs[1]), np.asarray(np.uint8(0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant(node.inputs[2])
        if found is None:
            return None
        zero_point = found
    if scale is None or scale.size != 1 or zero_point.size != 1:
        return None
    value = float(scale.item())
    return (value, int(zero_point.item())) if 0 < value < math.inf else None


def is_private_clip(node: ir.Node, output: ir.Value) -> bool:
    """Whether a node is a Clip with constant bounds, whose output nobody else takes."""
    return (
        (node.domain, node.op_type) in (("", "Clip"), ("ai.onnx", "Clip"))
        and len(node.inputs) == 3
        and all(_is_scalar(constant(bound)) for bound in node.inputs[1:])
        and len(output.uses()) == 1
        and not output.is_graph_output()
    )


def _is_scalar(array: NDArray[Any] | None) -> bool:
    return array is not None and array.size == 1


def clip_bounds(node: ir.Node) -> list[np.float32]:
    """The lower and the upper one."""
    bounds = [constant(value) for value in node.inputs[1:]]
    return [np.float32(bound.item()) for bound in bounds if bound is not None]


def quantized(value: np.float32, scale: float, zero_point: int) -> int:
    """What QuantizeLinear makes of a value."""
    with np.errstate(over="ignore"):
        quotient = float(np.rint(value / np.float32(scale)))
    return int(min(max(quotient + zero_point, 0), 255))


@dataclass(frozen=True)
class Lookup:
    """A Cast of uint8 integers to indices, and the Gather after it that looks them up.

    Attributes:
        cast: to int32 or int64.
        gather: along axis 0 of the table.
        table: 256 bytes.
    """

    cast: ir.Node
    gather: ir.Node
    table: bytes


def lookup_of(gather: ir.Node | None) -> Lookup | None:
    """The lookup that ends with a node, if one does."""
    if gather is None or not _is_standard(gather, "Gather") or gather.inputs[1] is None:
        return None
    cast, table = gather.inputs[1].producer(), constant(gather.inputs[0])
    if cast is None or not _is_standard(cast, "Cast"):
        return None
    if cast.attributes["to"].as_int() not in (ir.DataType.INT32, ir.DataType.INT64):
        return None
    if table is None or table.dtype != np.uint8 or table.shape != (256,):
        return None
    axis = gather.attributes.get("axis")
    is_first = axis is None or axis.as_int() == 0
    return Lookup(cast, gather, table.tobytes()) if is_first else None


def _is_standard(node: ir.Node, op_type: str) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type == op_type
