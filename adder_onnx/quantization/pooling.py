"""Scales of values around MaxPool nodes.

A maximum is the same before and after a conversion that keeps order. So a MaxPool between adder
nodes works on integers, if what goes in and what comes out have one scale: that of what comes out,
unless others take what goes in, whose range may be larger.
"""

from __future__ import annotations

import onnx_ir as ir

from adder_onnx.graph.adder_node import is_adder_node, value_name
from adder_onnx.quantization.ranges import Quantization

__all__ = ["is_max_pool", "share_scales"]


def is_max_pool(node: ir.Node) -> bool:
    """Whether a node is a MaxPool whose second output, the indices, nobody uses."""
    is_pool = node.domain in ("", "ai.onnx") and node.op_type == "MaxPool"
    return is_pool and not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])


def share_scales(graph: ir.Graph, quantizations: dict[str, Quantization]) -> None:
    """Gives what enters and what leaves each MaxPool between adder nodes one scale.

    Args:
        graph: with epilogues fused.
        quantizations: of the values that enter and leave adder nodes, by name; changed.
    """
    for node in graph:
        if not is_max_pool(node):
            continue
        source, pooled = node.inputs[0], node.outputs[0]
        assert source is not None
        producer = source.producer()
        before, after = value_name(source), value_name(pooled)
        if producer is None or not is_adder_node(producer) or after not in quantizations:
            continue
        alone = len(list(source.uses())) == 1 and not source.is_graph_output()
        if before in quantizations:
            shared = quantizations[after if alone else before]
            quantizations[before] = quantizations[after] = shared
