"""Rewriting a graph with fused adder nodes to integer nodes.

Every adder node that is quantized becomes a QLinearAdderConv. Only uint8 tensors pass between
these, through MaxPool nodes too. A float value that enters one is quantized, clipped to its range
before where that has fewer than 8 bits; where it becomes few levels, by QuantizeLinear with a finer
scale and a table. Where a float follows, an integer value is dequantized. A scale belongs to a
value: all who take it use the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode, adder_node, is_adder_node, value_name
from adder_onnx.ops import DOMAIN
from adder_onnx.quantization.few_levels import entry_of
from adder_onnx.quantization.pooling import is_max_pool
from adder_onnx.quantization.ranges import Quantization
from adder_onnx.quantization.weights import IntegerLayer

__all__ = ["NodeSummary", "can_be_quantized", "rewrite"]


@dataclass(frozen=True)
class NodeSummary:
    """What became of an adder node.

    Attributes:
        name: of the node.
        bits: of its input and weights.
        levels: the only integers that its input has; none for all.
        low: the least input value that an integer stands for.
        high: the greatest one.
        clamped: share of the weights that lay outside of that range.
        output: name of its integer output.
    """

    name: str
    bits: int
    levels: tuple[int, ...]
    low: float
    high: float
    clamped: float
    output: str


def can_be_quantized(node: AdderNode) -> bool:
    """Whether there is an integer node for it: constant float32 filters, no bound above."""
    return (
        node.type == "float32"
        and not isinstance(node.weight, str)
        and node.clip_max == float("inf")
        and node.clip_min in (0.0, float("-inf"))
    )


def rewrite(
    graph: ir.Graph,
    quantizations: Mapping[str, Quantization],
    layer_of: Callable[[AdderNode], IntegerLayer],
    nodes: Collection[str],
) -> list[NodeSummary]:
    """Replaces adder nodes in a graph whose epilogues are fused.

    Args:
        graph: is changed.
        quantizations: of the values that enter and leave the nodes, by name.
        layer_of: gives the integers of a node.
        nodes: names of the adder nodes that are replaced.
    """
    writer = _Writer(graph, quantizations)
    summaries = []
    for node in list(graph):
        if is_adder_node(node) and node.name in nodes:
            plain = adder_node(node)
            x, layer = quantizations[plain.x], layer_of(plain)
            output = writer.replace(node, plain, layer)
            summaries.append(
                NodeSummary(plain.name, x.bits, x.levels, x.low, x.high, layer.clamped, output)
            )
    return summaries


class _Writer:
    """Puts integer nodes, and conversions where they are needed, into a graph."""

    def __init__(self, graph: ir.Graph, quantizations: Mapping[str, Quantization]) -> None:
        self._graph = graph
        self._quantizations = quantizations
        self._integers: dict[ir.Value, ir.Value] = {}
        self._constants: dict[tuple[str, str], ir.Value] = {}
        self._taken = _names(graph)

    def replace(
        self,
        node: ir.Node,
        plain: AdderNode,
        layer: IntegerLayer,
    ) -> str:
        """Puts a QLinearAdderConv in the place of an adder node; the name of its output."""
        name, y = plain.name, self._quantizations[plain.y]
        x_value, z_value = node.inputs[0], None
        assert x_value is not None
        inputs = [self._integer(node, x_value), self._constant(name, ".weight", layer.weight)]
        inputs += self._parameters(plain.x)
        inputs += [
            self._constant(name, ".scale", plain.scale),
            self._constant(name, ".bias", layer.bias),
        ]
        if plain.residual is None:
            inputs += [
                self._constant("", "no_residual", np.uint8(0)),
                self._constant("", "no_residual_scale", np.float32(1)),
                self._constant("", "no_residual_zero_point", np.uint8(0)),
            ]
        else:
            z_value = node.inputs[2]
            assert z_value is not None
            inputs += [self._integer(node, z_value), *self._parameters(plain.residual)]
        inputs += self._parameters(plain.y)
        a = plain.attributes
        attributes: dict[str, Any] = {
            "auto_pad": a.auto_pad,
            "bits": y.bits,
            "clip_min": float(plain.clip_min),
            "dilations": list(a.dilations),
            "group": a.group,
            "kernel_shape": list(layer.weight.shape[2:]),
            "pads": list(a.pads),
            "strides": list(a.strides),
        }
        if y.levels:
            attributes["levels"] = list(y.levels)
        if a.auto_pad != "NOTSET":
            del attributes["pads"]
        output = node.outputs[0]
        integer = ir.node(
            "QLinearAdderConv", inputs, attributes, domain=DOMAIN, num_outputs=1, name=name
        )
        result = integer.outputs[0]
        result.name = self._unique(f"{output.name}_quantized")
        result.dtype, result.shape = ir.DataType.UINT8, output.shape
        self._graph.insert_after(node, integer)
        self._integers[output] = result
        back = self._node("DequantizeLinear", [result, *self._parameters(plain.y)], plain.y)
        self._graph.insert_after(integer, back)
        name_of_output, shape, type_ = output.name, output.shape, output.type
        ir.convenience.replace_all_uses_with(output, back.outputs[0], replace_graph_outputs=True)
        self._integers[back.outputs[0]] = result
        self._graph.remove(node, safe=True)
        back.outputs[0].name, back.outputs[0].shape, back.outputs[0].type = (
            name_of_output,
            shape,
            type_,
        )
        return result.name

    def _integer(self, before: ir.Node, value: ir.Value) -> ir.Value:
        """The integers of a float value; quantizes it where nobody has."""
        if value in self._integers:
            return self._integers[value]
        pooled = self._pool(value)
        if pooled is not None:
            return pooled
        assert value.name
        q = self._quantizations[value.name]
        if q.levels:
            return self._levels(before, value, q)
        source = value
        if q.bits < 8:
            # QuantizeLinear itself clips to 8 bits. (A Clip before it that does no more makes
            # onnxruntime 1.20 to 1.23 fail.)
            low = self._constant(value.name, "_low", np.float32(q.low))
            high = self._constant(value.name, "_high", np.float32(q.high))
            source = self._insert(before, "Clip", [value, low, high], value, ir.DataType.FLOAT)
        integers = self._insert(
            before,
            "QuantizeLinear",
            [source, *self._parameters(value.name)],
            value,
            ir.DataType.UINT8,
        )
        self._integers[value] = integers
        return integers

    def _levels(self, before: ir.Node, value: ir.Value, q: Quantization) -> ir.Value:
        """The integers of a float value that becomes few levels."""
        assert value.name
        fine, table = entry_of(q)
        parameters = [
            self._constant(value.name, "_fine_scale", np.float32(fine.scale)),
            self._constant(value.name, "_fine_zero_point", np.uint8(fine.zero_point)),
        ]
        fine_integers = self._insert(
            before, "QuantizeLinear", [value, *parameters], value, ir.DataType.UINT8
        )
        indices = self._insert(
            before, "Cast", [fine_integers], value, ir.DataType.INT32, to=ir.DataType.INT32
        )
        levels = self._constant(value.name, "_levels", table)
        integers = self._insert(before, "Gather", [levels, indices], value, ir.DataType.UINT8)
        self._integers[value] = integers
        return integers

    def _insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        value: ir.Value,
        type_: ir.DataType,
        **attributes: Any,
    ) -> ir.Value:
        """The output of a new node that changes a value's type or range, and not its shape."""
        assert value.name
        node = self._node(op_type, inputs, value.name, attributes)
        output = node.outputs[0]
        output.name = self._unique(f"{node.name}_output")
        output.shape, output.dtype = value.shape, type_
        self._graph.insert_before(before, node)
        return output

    def _pool(self, value: ir.Value) -> ir.Value | None:
        """The integers of a MaxPool's output, where those of its input have the same scale."""
        node = value.producer()
        if node is None or not is_max_pool(node) or node.inputs[0] not in self._integers:
            return None
        names = value_name(node.inputs[0]), value_name(value)
        if self._quantizations.get(names[0]) != self._quantizations[names[1]]:
            return None
        pool = ir.Node(
            "",
            "MaxPool",
            inputs=[self._integers[node.inputs[0]]],
            attributes=[*node.attributes.values()],
            num_outputs=1,
            name=self._unique(f"{node.name}_quantized"),
        )
        result = pool.outputs[0]
        result.name = self._unique(f"{value.name}_quantized")
        result.dtype, result.shape = ir.DataType.UINT8, value.shape
        self._graph.insert_after(node, pool)
        self._integers[value] = result
        return result

    def _parameters(self, value: str) -> list[ir.Value]:
        q = self._quantizations[value]
        return [
            self._constant(value, "_scale", np.float32(q.scale)),
            self._constant(value, "_zero_point", np.uint8(q.zero_point)),
        ]

    def _node(
        self,
        op_type: str,
        inputs: list[ir.Value],
        about: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Node:
        name = self._unique(f"{about}_{op_type}")
        return ir.node(op_type, inputs, attributes, num_outputs=1, name=name)

    def _constant(
        self,
        owner: str,
        field: str,
        array: NDArray | np.generic,  # type: ignore[type-arg]
    ) -> ir.Value:
        """The initializer of a node or value for a field, made when it is first needed."""
        key = (owner, field)
        if key not in self._constants:
            values = np.asarray(array)
            name = self._unique(owner + field)
            tensor = ir.tensor(values, name=name)
            value = ir.Value(
                name=name,
                shape=ir.Shape(values.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self._graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def _unique(self, name: str) -> str:
        """The name, or with a number behind it where the graph has that already."""
        found, count = name, 0
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found


def _names(graph: ir.Graph) -> set[str]:
    """Names of all values and nodes, those of inner graphs included."""
    taken: set[str | None] = set()
    for inner in (graph, *graph.subgraphs()):
        taken.update(inner.initializers, (value.name for value in inner.inputs))
        for node in inner:
            taken.update((node.name, *(value.name for value in node.outputs)))
    return {name for name in taken if name}
