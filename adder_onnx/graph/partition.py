"""Cutting a graph into onnxruntime sub-models and chains of adder nodes, which take turns.

Every node gets a level. A chain of level k runs after the sub-models of levels 1 … k, and a
sub-model of level k after the chains of levels 0 … k-1:

    level(adder node)    = max over predecessors p of level(p), or 0
    level(standard node) = max over predecessors p of level(p) + (1 if p is an adder node), or 1

Standard nodes of one level form one sub-model, adder nodes of one level one chain. A path of the
graph with k runs of standard nodes, separated by adder nodes, needs k sub-models in any partition;
the highest level of a standard node is the largest such k, so there are never more sub-models than
needed. Edges never lead to an earlier part, so no group depends on itself through another.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.graph.adder_node import is_adder_node

__all__ = ["Part", "node_inputs", "partition", "subgraphs"]


@dataclass(frozen=True)
class Part:
    """Nodes that run together, in the graph's order: all adder nodes or all standard nodes."""

    is_chain: bool
    nodes: tuple[ir.Node, ...]


def partition(graph: ir.Graph) -> list[Part]:
    """The parts of a topologically sorted graph, in the order in which they run."""
    levels: dict[ir.Node, int] = {}
    groups: dict[tuple[int, bool], list[ir.Node]] = {}
    for node in graph:
        is_adder = is_adder_node(node)
        level = 0 if is_adder else 1
        for value in node_inputs(node):
            producer = value.producer()
            if producer is not None:
                step = not is_adder and is_adder_node(producer)
                level = max(level, levels[producer] + step)
        levels[node] = level
        groups.setdefault((level, is_adder), []).append(node)
    # Of one level, the sub-model comes before the chain.
    return [Part(is_adder, tuple(groups[level, is_adder])) for level, is_adder in sorted(groups)]


def node_inputs(node: ir.Node) -> list[ir.Value]:
    """A node's inputs, those that its subgraphs capture from outside included, each once."""
    values = [value for value in node.inputs if value is not None]
    for graph in subgraphs(node):
        values += _captured_by(graph)
    return list(dict.fromkeys(values))


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes: the bodies of If, Loop and Scan."""
    graphs: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs += attribute.as_graphs()
    return graphs


def _captured_by(graph: ir.Graph) -> list[ir.Value]:
    """Values of enclosing graphs that a subgraph uses."""
    inside = set(graph.inputs) | set(graph.initializers.values())
    used: list[ir.Value] = []
    for node in graph:
        used += node_inputs(node)
        inside.update(node.outputs)
    return [value for value in (*used, *graph.outputs) if value not in inside]
