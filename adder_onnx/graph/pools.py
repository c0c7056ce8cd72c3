"""Max pooling between integer adder nodes, which stays uint8.

A MaxPool is a node of a chain where

1. an integer adder node, or another such MaxPool, gives its input;
2. it is two-dimensional, nobody uses its second output, the indices, and where auto_pad is one of
   SAME the kernel is no smaller than the stride (else onnxruntime pads by negative numbers).

Where a quantized network has DequantizeLinear, MaxPool, QuantizeLinear instead, the three become
such a MaxPool if

3. an integer adder node, or a MaxPool of rule 1, gives what the DequantizeLinear takes;
4. nobody else takes what the MaxPool, of rule 2, gives, nor what a Clip with constant bounds does
   that may stand before the QuantizeLinear;
5. both have one constant scale and zero point for the tensor, and all together give back every
   integer that may come: since they keep order, that of a maximum is then the maximum itself.

The DequantizeLinear stays for others that take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.adder_node import adder_node, is_integer_adder_node, value_name
from adder_onnx.graph.linear_quantization import (
    clip_bounds,
    is_private_clip,
    quantization_parameters,
)
from adder_onnx.ops import ConvAttributes

__all__ = ["PoolNode", "absorb_pools", "is_pool_node", "pool_node"]

_POOL = "adder_onnx.pool"
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class PoolNode:
    """A MaxPool as the kernels see it.

    Attributes:
        name: of the node.
        x: name of the input, (N, C, H, W).
        y: name of the output, (N, C, oH, oW).
        kernel: its height and width.
        attributes: strides, pads and dilations, as those of a convolution.
        ceil_mode: whether the last window along an axis may go beyond the padded image.
        fused: names of the nodes that became part of it.
    """

    name: str
    x: str
    y: str
    kernel: tuple[int, int]
    attributes: ConvAttributes
    ceil_mode: bool
    fused: tuple[str, ...]

    type: ClassVar[str] = "uint8"
    residual: ClassVar[None] = None

    def without_weight(self) -> PoolNode:
        """The same: it has none."""
        return self

    def output_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output.

        Raises:
            ModelError: the dilated kernel is larger than the padded image.
        """
        floor = self.attributes.output_size(input_size, self.kernel)
        if not self.ceil_mode or self.attributes.auto_pad != "NOTSET":
            return floor
        sizes = []
        for axis, size in enumerate(floor):
            stride, begin = self.attributes.strides[axis], self.attributes.pads[axis]
            span = (self.kernel[axis] - 1) * self.attributes.dilations[axis] + 1
            padded = input_size[axis] + begin + self.attributes.pads[axis + 2]
            # One more where something is left, unless its window begins behind the image.
            more = (padded - span) % stride and size * stride < input_size[axis] + begin
            sizes.append(size + int(bool(more)))
        return (sizes[0], sizes[1])


def is_pool_node(node: ir.Node) -> bool:
    """Whether a node is a MaxPool of a chain."""
    return _POOL in node.meta


def pool_node(node: ir.Node) -> PoolNode:
    """The kernels' view of a MaxPool of a chain."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    height, width = attributes["kernel_shape"]
    return PoolNode(
        node.name or value_name(node.outputs[0]),
        value_name(node.inputs[0]),
        value_name(node.outputs[0]),
        (int(height), int(width)),
        ConvAttributes.from_mapping(attributes),
        bool(attributes.get("ceil_mode", 0)),
        node.meta.get(_POOL, ()),
    )


def absorb_pools(graph: ir.Graph) -> None:
    """Marks all nodes that the rules allow; those of rules 3 to 5 take the first form."""
    for node in list(graph):
        if node.domain not in _STANDARD or node.op_type != "MaxPool" or not _is_plain(node):
            continue
        source = node.inputs[0]
        assert source is not None
        if _top(source) is not None:
            node.meta[_POOL] = ()
        else:
            _absorb_conversions(graph, node, source)


def _is_plain(node: ir.Node) -> bool:
    unused = all(not v.uses() and not v.is_graph_output() for v in node.outputs[1:])
    kernel = node.attributes["kernel_shape"].as_ints()
    if not unused or len(kernel) != 2:
        return False
    pool = pool_node(node)
    is_same = pool.attributes.auto_pad.startswith("SAME")
    return not is_same or all(k >= s for k, s in zip(kernel, pool.attributes.strides, strict=True))


def _top(value: ir.Value) -> int | None:
    """The largest integer that a value of rule 1 may have; None for other values."""
    producer = value.producer()
    if producer is None:
        return None
    if is_pool_node(producer):
        source = producer.inputs[0]
        assert source is not None
        return _top(source)
    if not is_integer_adder_node(producer):
        return None
    integers = adder_node(producer).integers
    assert integers is not None
    return int(2**integers.bits) - 1


def _absorb_conversions(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    back = source.producer()
    if back is None or back.domain not in _STANDARD or back.op_type != "DequantizeLinear":
        return
    integers = back.inputs[0]
    top = None if integers is None else _top(integers)
    after = _only_consumer(node.outputs[0])
    clip = None
    if after is not None and is_private_clip(after, after.outputs[0]):
        clip, after = after, _only_consumer(after.outputs[0])
    if top is None or after is None or after.domain not in _STANDARD:
        return
    if after.op_type != "QuantizeLinear" or not _gives_back(top, back, clip, after):
        return
    assert integers is not None
    removed = [after] if clip is None else [after, clip]
    node.replace_input_with(0, integers)
    if not back.outputs[0].uses() and not back.outputs[0].is_graph_output():
        removed.append(back)
    node.meta[_POOL] = tuple(gone.name or "" for gone in reversed(removed))
    result, pooled = after.outputs[0], node.outputs[0]
    name, shape, type_ = result.name, result.shape, result.type
    ir.convenience.replace_all_uses_with(result, pooled, replace_graph_outputs=True)
    for gone in removed:
        graph.remove(gone, safe=True)
    pooled.name, pooled.shape, pooled.type = name, shape, type_


def _only_consumer(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return None if len(uses) != 1 or value.is_graph_output() else uses[0].node


def _gives_back(top: int, back: ir.Node, clip: ir.Node | None, there: ir.Node) -> bool:
    """Whether all integers up to ``top`` stay what they are, as ONNX converts them in float32."""
    before, after = quantization_parameters(back), quantization_parameters(there)
    types = back.outputs[0].dtype, there.outputs[0].dtype
    if before is None or after is None or types != (ir.DataType.FLOAT, ir.DataType.UINT8):
        return False
    (scale, zero_point), (other_scale, other_zero_point) = before, after
    integers = np.arange(top + 1, dtype=np.float32)
    values = (integers - np.float32(zero_point)) * np.float32(scale)
    if clip is not None:
        low, high = clip_bounds(clip)
        values = np.clip(values, low, high)
    rounded = np.rint(values / np.float32(other_scale)) + np.float32(other_zero_point)
    return bool((np.clip(rounded, 0, 255) == integers).all())
