"""Taking quantization at the border of a chain into the conversion there.

A chain's tensors change their layout where they enter and leave it; a change of type there costs
nothing more. Absorbed are

1. QuantizeLinear of a float32 image to uint8, with one scale and one zero point, that only integer
   adder nodes take, and that no adder node gives;
2. a Clip with constant bounds before it, which only it takes, where the lower bound is quantized to
   zero: the upper one becomes the largest integer;
3. DequantizeLinear of what an integer adder node gives to float32, with one scale and one zero
   point, that no adder node takes.

They run as nodes of the chain: `is_border_node` tells the partition so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.adder_node import constant, is_adder_node, is_float_adder_node, value_name

__all__ = ["Quantization", "absorb_quantization", "is_border_node", "quantization_of"]

_QUANTIZATION = "adder_onnx.quantization"


@dataclass(frozen=True)
class Quantization:
    """How a float32 value becomes uint8, and back.

    Attributes:
        value: name of the uint8 value, which is inside of the chain.
        scale: positive.
        zero_point: 0 to 255.
        top: the largest integer that a float becomes.
        nodes: names of the absorbed nodes.
    """

    value: str
    scale: float
    zero_point: int
    top: int
    nodes: tuple[str, ...]


def is_border_node(node: ir.Node) -> bool:
    """Whether a node became part of the conversion at the border of a chain."""
    return _QUANTIZATION in node.meta


def quantization_of(node: ir.Node) -> Quantization:
    """What a border node does."""
    found = node.meta[_QUANTIZATION]
    assert isinstance(found, Quantization)
    return found


def absorb_quantization(graph: ir.Graph) -> None:
    """Marks all nodes that the rules allow; a Clip among them is removed."""
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "QuantizeLinear":
            _absorb_quantize(graph, node)
        elif node.op_type == "DequantizeLinear":
            _absorb_dequantize(node)


def _absorb_quantize(graph: ir.Graph, node: ir.Node) -> None:
    parameters = _parameters(node)
    source, output = node.inputs[0], node.outputs[0]
    if parameters is None or source is None or output.is_graph_output() or not output.uses():
        return
    if not all(_is_integer(use.node) for use in output.uses()):
        return
    scale, zero_point = parameters
    top = 255
    nodes: tuple[str, ...] = (node.name or "",)
    clip = source.producer()
    if clip is not None and _is_private_clip(clip, source):
        bounds = [_quantize(bound, scale, zero_point) for bound in _bounds(clip)]
        if bounds[0] == 0:
            top = bounds[1]
            nodes = (clip.name or "", *nodes)
            source = clip.inputs[0]
    assert source is not None
    producer = source.producer()
    inside = producer is not None and (is_adder_node(producer) or is_border_node(producer))
    if source.dtype != ir.DataType.FLOAT or inside:
        return
    node.replace_input_with(0, source)
    if len(nodes) > 1:
        assert clip is not None
        graph.remove(clip, safe=True)
    node.meta[_QUANTIZATION] = Quantization(value_name(output), scale, zero_point, top, nodes)


def _absorb_dequantize(node: ir.Node) -> None:
    parameters = _parameters(node)
    source, output = node.inputs[0], node.outputs[0]
    producer = source.producer() if source is not None else None
    if parameters is None or producer is None or not _is_integer(producer):
        return
    if any(is_adder_node(use.node) for use in output.uses()):
        return
    node.meta[_QUANTIZATION] = Quantization(
        value_name(source), *parameters, 255, (node.name or "",)
    )


def _is_integer(node: ir.Node) -> bool:
    return is_adder_node(node) and not is_float_adder_node(node)


def _parameters(node: ir.Node) -> tuple[float, int] | None:
    """Scale and zero point, where both are constants, one for the whole tensor."""
    scale, zero_point = constant(node.inputs[1]), np.asarray(np.uint8(0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant(node.inputs[2])
        if found is None:
            return None
        zero_point = found
    if scale is None or scale.size != 1:
        return None
    value = float(scale.item())
    return (value, int(zero_point.item())) if 0 < value < math.inf else None


def _is_private_clip(node: ir.Node, output: ir.Value) -> bool:
    return (
        (node.domain, node.op_type) in (("", "Clip"), ("ai.onnx", "Clip"))
        and len(node.inputs) == 3
        and all(constant(bound) is not None for bound in node.inputs[1:])
        and len(output.uses()) == 1
        and not output.is_graph_output()
    )


def _bounds(node: ir.Node) -> list[np.float32]:
    bounds = [constant(value) for value in node.inputs[1:]]
    return [np.float32(bound.item()) for bound in bounds if bound is not None]


def _quantize(value: np.float32, scale: float, zero_point: int) -> int:
    with np.errstate(over="ignore"):
        quotient = float(np.rint(value / np.float32(scale)))
    return int(min(max(quotient + zero_point, 0), 255))
