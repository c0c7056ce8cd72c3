"""Scales of values around MaxPool nodes.

A maximum is the same before and after a conversion that keeps order. So a MaxPool between adder
nodes works on integers, if what goes in and what comes out have one scale: that of what comes out,
unless others take what goes in, whose range may be larger.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.graph.adder_node import is_adder_node, value_name
from adder_onnx.quantization.ranges import Quantization

__all__ = ["SharedScale", "is_max_pool", "share_scales", "shared_scales"]


def is_max_pool(node: ir.Node) -> bool:
    """Whether a node is a MaxPool whose second output, the indices, nobody uses."""
    is_pool = node.domain in ("", "ai.onnx") and node.op_type == "MaxPool"
    return is_pool and not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])


@dataclass(frozen=True)
class SharedScale:
    """A MaxPool after an adder node and before another.

    Attributes:
        before: name of what goes in.
        after: name of what comes out.
        by_after: whether what comes out determines the scale.
    """

    before: str
    after: str
    by_after: bool


def shared_scales(graph: ir.Graph, names: Collection[str]) -> list[SharedScale]:
    """The MaxPool nodes of a graph around which values have one scale.

    Args:
        graph: with epilogues fused.
        names: of the values that enter and leave adder nodes.
    """
    found = []
    for node in graph:
        if not is_max_pool(node):
            continue
        source, pooled = node.inputs[0], node.outputs[0]
        assert source is not None
        producer = source.producer()
        before, after = value_name(source), value_name(pooled)
        if producer is None or not is_adder_node(producer) or after not in names:
            continue
        alone = len(list(source.uses())) == 1 and not source.is_graph_output()
        if before in names:
            found.append(SharedScale(before, after, alone))
    return found


def share_scales(graph: ir.Graph, quantizations: dict[str, Quantization]) -> None:
    """Gives what enters and what leaves each MaxPool between adder nodes one scale.

    Args:
        graph: with epilogues fused.
        quantizations: of the values that enter and leave adder nodes, by name; changed.
    """
    for shared in shared_scales(graph, quantizations):
        source = shared.after if shared.by_after else shared.before
        quantizations[shared.before] = quantizations[shared.after] = quantizations[source]
