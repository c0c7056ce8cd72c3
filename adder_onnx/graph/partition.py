"""Cutting a graph into onnxruntime sub-models and chains of adder nodes, which take turns.

Here, what was absorbed into the border of a chain, and a MaxPool in it, is an adder node like those
in it.

Every node gets a level. A chain of level k runs after the sub-models of levels 1 … k, and a
sub-model of level k after the chains of levels 0 … k-1. The lowest levels possible are

    level(adder node)    = max over predecessors p of level(p), or 0
    level(standard node) = max over predecessors p of level(p) + (1 if p is an adder node), or 1

(A chain is channels-last inside, and filters are not: an adder node whose filters an adder node
computes is one level above that, too.)

Standard nodes of one level form one sub-model. A path of the graph with k runs of standard nodes,
separated by adder nodes, needs k sub-models in any partition; the highest level of a standard node
is the largest such k, so there are never more sub-models than needed.

Adder nodes of one level form one chain. Those that nobody waits for yet may run later than at their
lowest level: a chain is made only at a level that is the last possible one for some node, and takes
along all that can run there. (The greedy choice of points that meet a set of intervals; it makes
the fewest chains for these sub-models.)

Edges never lead to an earlier part, so no group depends on itself through another.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.graph.adder_node import is_adder_node
from adder_onnx.graph.borders import is_border_node
from adder_onnx.graph.pools import is_pool_node

__all__ = ["Part", "node_inputs", "partition", "subgraphs"]


@dataclass(frozen=True)
class Part:
    """Nodes that run together, in the graph's order: all adder nodes or all standard nodes."""

    is_chain: bool
    nodes: tuple[ir.Node, ...]


def _in_chain(node: ir.Node) -> bool:
    return is_adder_node(node) or is_pool_node(node) or is_border_node(node)


def partition(graph: ir.Graph) -> list[Part]:
    """The parts of a topologically sorted graph, in the order in which they run."""
    inputs = {node: _producers(node) for node in graph}
    levels: dict[ir.Node, int] = {}
    for node, producers in inputs.items():
        lowest = 0 if _in_chain(node) else 1
        levels[node] = max([lowest, *(levels[p] + step for p, step in producers)])
    _join_chains(inputs, levels)
    _move_to_users(graph, levels)
    groups: dict[tuple[int, bool], list[ir.Node]] = {}
    for node in graph:
        groups.setdefault((levels[node], _in_chain(node)), []).append(node)
    # Of one level, the sub-model comes before the chain.
    return [Part(is_chain, tuple(groups[level, is_chain])) for level, is_chain in sorted(groups)]


_Producers = list[tuple[ir.Node, int]]
"""The nodes that a node waits for, each with the least difference of their levels."""


def _producers(node: ir.Node) -> _Producers:
    found = []
    for value in node_inputs(node):
        producer = value.producer()
        if producer is not None:
            leaves_chain = not _in_chain(node) or (is_adder_node(node) and value is node.inputs[1])
            found.append((producer, int(leaves_chain and _in_chain(producer))))
    return found


def _join_chains(inputs: dict[ir.Node, _Producers], levels: dict[ir.Node, int]) -> None:
    """Moves adder nodes to later levels where that makes fewer chains."""
    last = max(levels.values(), default=0)
    latest = {node: last if _in_chain(node) else level for node, level in levels.items()}
    for node, producers in reversed(inputs.items()):
        for producer, step in producers:
            if _in_chain(producer):
                latest[producer] = min(latest[producer], latest[node] - step)
    needed: list[int] = []
    adders = [node for node in inputs if _in_chain(node)]
    for node in sorted(adders, key=lambda node: latest[node]):
        if not needed or needed[-1] < levels[node]:
            needed.append(latest[node])
    for node in adders:
        lowest = max([levels[node], *(levels[p] + step for p, step in inputs[node])])
        levels[node] = needed[bisect_left(needed, lowest)]


def _move_to_users(graph: ir.Graph, levels: dict[ir.Node, int]) -> None:
    """Moves nodes to the first level that needs them, where they cost less.

    These are the quantizations at the begin of a chain, and standard nodes that take constants
    alone: the DequantizeLinear of weights, which onnxruntime recognises beside their consumer.
    """
    constant: set[ir.Node] = set()
    for node in graph:
        if not _in_chain(node) and all(
            value.is_initializer() or value.producer() in constant for value in node_inputs(node)
        ):
            constant.add(node)
    for node in reversed(graph):
        enters = is_border_node(node) and node.op_type == "QuantizeLinear"
        users = {use.node for value in node.outputs for use in value.uses()}
        is_inner = not any(value.is_graph_output() for value in node.outputs)
        if (enters or node in constant) and users and is_inner and users <= levels.keys():
            levels[node] = min(levels[user] for user in users)


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
        if attribute.is_ref():
            continue
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
