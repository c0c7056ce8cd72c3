"""Taking quantization at the border of a chain into the conversion there.

A chain's tensors change their layout where they enter and leave it; a change of type there costs
nothing more. Absorbed are

1. QuantizeLinear of a float32 image, no constant, to uint8, with one scale and one zero point, that
   only integer nodes take, and that no adder node gives;
2. a Clip with constant bounds before it, which only it takes, where the lower bound is quantized to
   zero: the upper one becomes the largest integer;
3. a Cast to int32 or int64 and a Gather after it, along axis 0 of a constant of 256 uint8, each of
   which alone takes what the one before it gives: a table of what the integers become; then it is
   the Gather's output that only integer nodes take;
4. DequantizeLinear of what an integer node gives to float32, with one scale and one zero point,
   that no adder node takes.

Integer nodes are integer adder nodes, and the MaxPool nodes of `pools`. What is absorbed runs as
nodes of the chain: `is_border_node` tells the partition so.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.graph.adder_node import (
    constant,
    is_adder_node,
    is_integer_adder_node,
    value_name,
)
from adder_onnx.graph.linear_quantization import (
    Lookup,
    clip_bounds,
    is_private_clip,
    lookup_of,
    quantization_parameters,
    quantized,
)
from adder_onnx.graph.pools import is_pool_node

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
        table: what each of the integers 0 to 255 becomes then, where there is one.
    """

    value: str
    scale: float
    zero_point: int
    top: int
    nodes: tuple[str, ...]
    table: bytes | None = None


def is_border_node(node: ir.Node) -> bool:
    """Whether a node became part of the conversion at the border of a chain."""
    return _QUANTIZATION in node.meta


def quantization_of(node: ir.Node) -> Quantization:
    """What a border node does."""
    found = node.meta[_QUANTIZATION]
    assert isinstance(found, Quantization)
    return found


def absorb_quantization(graph: ir.Graph) -> None:
    """Marks all nodes that the rules allow; Clip, Cast and Gather among them are removed."""
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "QuantizeLinear":
            _absorb_quantize(graph, node)
        elif node.op_type == "DequantizeLinear":
            _absorb_dequantize(node)


def _absorb_quantize(graph: ir.Graph, node: ir.Node) -> None:
    parameters = quantization_parameters(node)
    source, output = node.inputs[0], node.outputs[0]
    lookup = _private_lookup(output)
    result = output if lookup is None else lookup.gather.outputs[0]
    if parameters is None or source is None or result.is_graph_output() or not result.uses():
        return
    if not all(_is_integer(use.node) for use in result.uses()):
        return
    scale, zero_point = parameters
    top = 255
    nodes: tuple[str, ...] = (node.name or "",)
    clip = source.producer()
    if clip is not None and is_private_clip(clip, source):
        bounds = [quantized(bound, scale, zero_point) for bound in clip_bounds(clip)]
        if bounds[0] == 0:
            top = bounds[1]
            nodes = (clip.name or "", *nodes)
            source = clip.inputs[0]
    assert source is not None
    producer = source.producer()
    inside = producer is not None and _is_in_chain(producer)
    if source.dtype != ir.DataType.FLOAT or inside or constant(source) is not None:
        return
    node.replace_input_with(0, source)
    if len(nodes) > 1:
        assert clip is not None
        graph.remove(clip, safe=True)
    table = None
    if lookup is not None:
        table = lookup.table
        nodes = (*nodes, lookup.cast.name or "", lookup.gather.name or "")
        ir.convenience.replace_all_uses_with(result, output)
        graph.remove([lookup.cast, lookup.gather], safe=True)
    node.meta[_QUANTIZATION] = Quantization(
        value_name(output), scale, zero_point, top, nodes, table
    )


def _private_lookup(integers: ir.Value) -> Lookup | None:
    """The lookup that uint8 integers go into, and nothing else takes them or their indices."""
    cast = _only_taker(integers)
    if cast is None or integers.dtype != ir.DataType.UINT8:
        return None
    lookup = lookup_of(_only_taker(cast.outputs[0]))
    return lookup if lookup is not None and lookup.cast is cast else None


def _only_taker(value: ir.Value) -> ir.Node | None:
    """The node that takes a value, once, where nobody else needs it."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _absorb_dequantize(node: ir.Node) -> None:
    parameters = quantization_parameters(node)
    source, output = node.inputs[0], node.outputs[0]
    producer = source.producer() if source is not None else None
    if parameters is None or producer is None or not _is_integer(producer):
        return
    if any(is_adder_node(use.node) or is_pool_node(use.node) for use in output.uses()):
        return
    node.meta[_QUANTIZATION] = Quantization(
        value_name(source), *parameters, 255, (node.name or "",)
    )


def _is_in_chain(node: ir.Node) -> bool:
    return is_adder_node(node) or is_pool_node(node) or is_border_node(node)


def _is_integer(node: ir.Node) -> bool:
    return is_integer_adder_node(node) or is_pool_node(node)
