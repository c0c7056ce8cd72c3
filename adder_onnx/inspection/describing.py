"""What a node itself says: its attributes, its constant inputs, the range of its integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.adder_node import constant
from adder_onnx.ops import DOMAIN

__all__ = ["Integers", "attributes_of", "integers_of"]

_MOST = 64
"""Elements of an attribute, and characters of one, that are shown."""


@dataclass(frozen=True)
class Integers:
    """The integers of a QLinearAdderConv, and the reals that they mean.

    Attributes:
        bits: of the output.
        input_scale: of the input and the weights.
        input_zero_point: of both.
        input_range: the reals that their integers reach, the lowest and the highest.
        output_scale: of the output.
        output_zero_point: of the output.
        output_range: the reals that the output's integers reach.
        weights_at_ends: share of the weights that are the lowest or the highest integer; weights
            that were clamped are among them. None where weights are computed.
        levels: the only integers of the output; none for all.
    """

    bits: int
    input_scale: float
    input_zero_point: int
    input_range: tuple[float, float]
    output_scale: float
    output_zero_point: int
    output_range: tuple[float, float]
    weights_at_ends: float | None
    levels: tuple[int, ...]


def integers_of(node: ir.Node) -> Integers | None:
    """Those of a QLinearAdderConv with constant scales and zero points; None of any other node."""
    if node.domain != DOMAIN or node.op_type != "QLinearAdderConv":
        return None
    # X, W, x_scale, x_zero_point, scale, bias, Z, z_scale, z_zero_point, y_scale, y_zero_point
    values = [constant(value) for value in node.inputs]
    x_scale, x_zero_point, y_scale, y_zero_point = (values[i] for i in (2, 3, 9, 10))
    if x_scale is None or x_zero_point is None or y_scale is None or y_zero_point is None:
        return None
    bits = node.attributes.get_int("bits", 8)
    # The attribute bounds the output; nothing says of how many bits the input is, but its producer.
    x_bits = _bits_of(node.inputs[0])
    weights = values[1]
    at_ends = None
    if weights is not None and weights.size:
        at_ends = float(np.mean((weights == 0) | (weights == 2**x_bits - 1)))
    return Integers(
        bits,
        float(x_scale),
        int(x_zero_point),
        _range(float(x_scale), int(x_zero_point), x_bits),
        float(y_scale),
        int(y_zero_point),
        _range(float(y_scale), int(y_zero_point), bits),
        at_ends,
        tuple(node.attributes.get_ints("levels", ())),
    )


def _bits_of(value: ir.Value | None) -> int:
    """Of a value's integers: those of the adder node that gives it, seen through pools; else 8."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.domain == DOMAIN:
            return producer.attributes.get_int("bits", 8)
        if producer.op_type != "MaxPool":
            break
        value = producer.inputs[0]
    return 8


def _range(scale: float, zero_point: int, bits: int) -> tuple[float, float]:
    return -zero_point * scale, (2**bits - 1 - zero_point) * scale


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as JSON has them: numbers, texts and lists of them.

    Infinities and NaN are texts; long lists and texts are cut; of tensors and graphs it is said
    what they are.
    """
    return {name: _attribute(attribute) for name, attribute in node.attributes.items()}


def _attribute(attribute: ir.Attr) -> Any:
    value = attribute.value
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, (ir.Graph, ir.TensorProtocol)) for item in value):
            return f"{len(value)} {attribute.type.name.lower()}"
        items = [_scalar(item) for item in value[:_MOST]]
        return items if len(value) <= _MOST else [*items, f"… {len(value)} in all"]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value if len(value) <= _MOST else f"{value[:_MOST]}…"
    if isinstance(value, ir.Graph):
        return f"a graph of {len(value)} nodes"
    if isinstance(value, ir.TensorProtocol):
        shape = " x ".join(map(str, value.shape)) or "scalar"
        return f"a tensor: {value.dtype.name.lower()} {shape}"
    return type(value).__name__
