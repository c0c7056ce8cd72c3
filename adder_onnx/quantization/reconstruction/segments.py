"""Parts of a model between values that are known and one that is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.partition import node_inputs
from adder_onnx.ops import DOMAIN
from adder_onnx.runtime import InferenceSession

__all__ = ["Segment", "sources"]


def sources(graph: ir.Graph, value: str, known: Collection[str]) -> list[str]:
    """Names of the known values, or of the graph's inputs, that a value is computed from.

    Args:
        graph: the whole graph.
        value: name of what is wanted; taken for unknown.
        known: names of values; one that is computed from others hides these.
    """
    named = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    found: set[str] = set()
    waiting, visited = [named[value]], set()
    while waiting:
        current = waiting.pop()
        if current in visited:
            continue
        visited.add(current)
        assert current.name
        node = current.producer()
        if current.name in known and current.name != value:
            found.add(current.name)
        elif node is not None:
            waiting += node_inputs(node)
        elif current.is_graph_input():
            found.add(current.name)
    return sorted(found)


class Segment:
    """What computes a value from others.

    Args:
        model: the whole model.
        inputs: names of what is given.
        output: name of what is wanted.
        threads: to use.
    """

    def __init__(
        self, model: ir.Model, inputs: Sequence[str], output: str, threads: int | None
    ) -> None:
        graph = ir.convenience.extract(model.graph, inputs, [output])
        named = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
        for value in (*graph.inputs, *graph.outputs):  # onnx-ir 0.1.14 loses those of outputs
            assert value.name
            value.type, value.shape = named[value.name].type, named[value.name].shape
        if not any(node.domain == DOMAIN for node in graph.all_nodes()):
            graph.opset_imports.pop(DOMAIN, None)  # it need not be warned of a lack of our nodes
        functions = [function.clone() for function in model.functions.values()]
        part = ir.Model(graph, ir_version=model.ir_version, functions=functions)
        self._session = InferenceSession(ir.to_proto(part), threads=threads)
        self._output = output

    def run(self, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        (result,) = self._session.run([self._output], given)
        return np.asarray(result, np.float32)
