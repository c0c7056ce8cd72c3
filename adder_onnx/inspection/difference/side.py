"""One of two models that are compared: its graph, what its nodes cost, what its plan fuses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
import onnx_ir as ir

from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode, adder_node, is_adder_node, mark_adder_nodes
from adder_onnx.graph.fusion import fuse_epilogues
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.partition import node_inputs
from adder_onnx.inspection.cost import Cost, cost_of
from adder_onnx.inspection.dimensions import assume, symbols
from adder_onnx.ops import DOMAIN
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["Side", "load_side", "operator_of"]


@dataclass(frozen=True)
class Side:
    """A model.

    Attributes:
        proto: as the file has it.
        graph: as `adder_onnx.graph.loading.load_graph` gives it, with the assumed dimensions.
        assumes: numbers assumed for unknown dimensions.
        nodes: of the main graph, in its order.
        named: names of nodes that the file itself gives.
        adders: adder nodes with their epilogues fused, by name.
        costs: of the nodes, by name.
    """

    proto: onnx.ModelProto
    graph: ir.Model
    assumes: dict[str, int]
    nodes: tuple[ir.Node, ...]
    named: frozenset[str]
    adders: dict[str, AdderNode]
    costs: dict[str, Cost]

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Of the graph."""
        return tuple(self.graph.graph.inputs)

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """Of the graph."""
        return tuple(self.graph.graph.outputs)

    @cached_property
    def by_name(self) -> dict[str, ir.Node]:
        """The nodes."""
        return {node.name or "": node for node in self.nodes}

    @cached_property
    def values(self) -> dict[str, ir.Value]:
        """Inputs of the graph and outputs of its nodes."""
        computed = (value for node in self.nodes for value in node.outputs)
        return {value.name or "": value for value in (*self.inputs, *computed)}

    @cached_property
    def consumers(self) -> dict[ir.Value, list[ir.Node]]:
        """The nodes that take a value, in a subgraph perhaps, each once."""
        found: dict[ir.Value, list[ir.Node]] = {}
        for node in self.nodes:
            for value in node_inputs(node):
                found.setdefault(value, []).append(node)
        return found

    @cached_property
    def hidden(self) -> frozenset[ir.Value]:
        """Values that a run never makes: those inside of fused epilogues."""
        found: set[ir.Value] = set()
        for adder in self.adders.values():
            for name in (adder.name, *adder.fused)[:-1]:
                found.update(self.by_name[name].outputs)
        return frozenset(found)


def load_side(
    source: str | os.PathLike[str] | bytes, batch_size: int, dims: Mapping[str, int]
) -> Side:
    """Reads and describes a model; nothing is run.

    Args:
        source: an ONNX file or its bytes.
        batch_size: for the first dimension of each input, where that has no number.
        dims: numbers for symbolic dimensions; those that the model does not have are left out.

    Raises:
        ModelError: the model cannot be read or is not valid.
        InputError: it does not fit these numbers.
    """
    proto = read_model(source)
    known = symbols(proto)
    assumed, numbers = assume(proto, batch_size, {n: dims[n] for n in dims if n in known})
    try:
        model = load_graph(assumed)
    except ModelError as error:
        if not numbers:
            raise
        load_graph(proto)  # whose own error, if it has one, says more
        text = ", ".join(f"{name} = {number}" for name, number in numbers.items())
        raise InputError(f"the model does not fit {text}: {error}") from error
    complete_types(model)
    nodes = tuple(model.graph)
    return Side(
        proto,
        model,
        numbers,
        nodes,
        frozenset(node.name for node in proto.graph.node if node.name),
        _adders(assumed) if any(node.domain == DOMAIN for node in nodes) else {},
        {node.name or "": cost_of(node) for node in nodes},
    )


def _adders(proto: onnx.ModelProto) -> dict[str, AdderNode]:
    """The adder nodes with their epilogues, without their weights."""
    model = load_graph(proto)  # once more: fusing changes it
    complete_types(model)
    graph = model.graph
    mark_adder_nodes(graph)
    fuse_epilogues(graph)
    found = (adder_node(node) for node in graph if is_adder_node(node))
    return {node.name: node.without_weight() for node in found}


def operator_of(node: ir.Node) -> str:
    """A node's operator, with the domain before it where that is not ONNX's own."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return domain + node.op_type
