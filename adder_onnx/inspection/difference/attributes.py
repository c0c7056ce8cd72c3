"""Attributes of two nodes: a default is the same whether it is written out or not.

1. Defaults are those of the operator's schema, in the version that the model imports.
2. Convolutions and pools have defaults that no schema knows: strides and dilations of one, pads of
   zero, the kernel's shape by the weight. `auto_pad` VALID is NOTSET without pads; where it is one
   of SAME, pads say nothing.
3. An attribute that only one of the operators knows is a difference where it is not the default.
4. Tensors are equal by type, shape and bytes; graphs by their nodes, whatever the names inside.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir

from adder_onnx.inspection.describing import attributes_of
from adder_onnx.ops import DOMAIN

__all__ = ["AttributeDifference", "compare_attributes", "essential", "tensor_key"]

_WEIGHTS = {
    ("", "Conv"): 1,
    ("", "ConvTranspose"): 1,
    ("", "ConvInteger"): 1,
    ("", "QLinearConv"): 3,
    (DOMAIN, "AdderConv"): 1,
    (DOMAIN, "QLinearAdderConv"): 1,
    ("com.microsoft", "FusedConv"): 1,
}
"""The number of the weight among the inputs of convolutions."""

_POOLS = ("AveragePool", "LpPool", "MaxPool")


@dataclass(frozen=True)
class AttributeDifference:
    """An attribute that differs.

    Attributes:
        name: of the attribute.
        a: what it is in A, as JSON has it; None where A's operator does not know it.
        b: the same in B.
        note: where in a subgraph they part; else empty.
    """

    name: str
    a: Any
    b: Any
    note: str = ""


Opsets = Mapping[str, int]
"""Versions of the operator sets that a model imports, by domain."""


def compare_attributes(
    a: ir.Node, b: ir.Node, opsets_a: Opsets, opsets_b: Opsets
) -> list[AttributeDifference]:
    """The attributes that differ between two nodes of one operator."""
    ours, theirs = _filled(a, opsets_a), _filled(b, opsets_b)
    if ours == theirs:
        return []
    defaults, others = _defaults(a, opsets_a), _defaults(b, opsets_b)
    shown, other = _shown(a, ours), _shown(b, theirs)
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) == theirs.get(name):
            continue
        if name not in theirs and ours[name] == defaults.get(name):
            continue
        if name not in ours and theirs[name] == others.get(name):
            continue
        note = _where(ours.get(name), theirs.get(name))
        found.append(AttributeDifference(name, shown.get(name), other.get(name), note))
    return found


def essential(node: ir.Node, opsets: Opsets) -> Hashable:
    """The attributes that are no defaults, as a key for nodes that do the same."""
    defaults = _defaults(node, opsets)
    filled = _filled(node, opsets)
    return frozenset((name, value) for name, value in filled.items() if value != defaults.get(name))


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _defaults(node: ir.Node, opsets: Opsets) -> dict[str, Hashable]:
    """Those that the operator's schema has."""
    domain = _domain(node)
    return _schema_defaults(domain, node.op_type, opsets.get(domain, opsets.get("ai.onnx", 1)))


@cache
def _schema_defaults(domain: str, op_type: str, version: int) -> dict[str, Hashable]:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:  # of onnxruntime's own operators
        return {}
    undefined = onnx.AttributeProto.UNDEFINED
    return {
        name: _key(ir.serde.deserialize_attribute(attribute.default_value), {})
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != undefined
    }


def _filled(node: ir.Node, opsets: Opsets) -> dict[str, Hashable]:
    """A node's attributes by name, those that are not written among them."""
    written = {name: _key(value, opsets) for name, value in node.attributes.items()}
    found = {**_defaults(node, opsets), **written}
    rank = _window_rank(node, found)
    if rank is None:
        return found
    if found.get("auto_pad") == "VALID":
        found |= {"auto_pad": "NOTSET", "pads": (0,) * 2 * rank}
    if found.get("auto_pad", "NOTSET") != "NOTSET":
        found.pop("pads", None)
    else:
        found.setdefault("pads", (0,) * 2 * rank)
    found.setdefault("strides", (1,) * rank)
    found.setdefault("dilations", (1,) * rank)
    if node.op_type == "ConvTranspose":
        found.setdefault("output_padding", (0,) * rank)
    return found


def _window_rank(node: ir.Node, found: dict[str, Hashable]) -> int | None:
    """Along how many axes a window moves; fills in its size. None where there is no window."""
    domain = _domain(node)
    place = _WEIGHTS.get((domain, node.op_type))
    weight = node.inputs[place] if place is not None and len(node.inputs) > place else None
    if weight is not None and weight.shape is not None:
        sizes = tuple(weight.shape)[2:]
        if all(isinstance(size, int) for size in sizes):
            found.setdefault("kernel_shape", sizes)
    if place is None and (domain or node.op_type not in _POOLS):
        return None
    kernel = found.get("kernel_shape")
    return len(kernel) if isinstance(kernel, tuple) else None


def _key(attribute: ir.Attr, opsets: Opsets) -> Hashable:
    value = attribute.value
    if isinstance(value, (list, tuple)):
        return tuple(_item(item, opsets) for item in value)
    return _item(value, opsets)


def _item(item: Any, opsets: Opsets) -> Hashable:
    if isinstance(item, float) and math.isnan(item):
        return "nan"  # a NaN is not equal to itself
    if isinstance(item, (int, float, str)):
        return item
    if isinstance(item, ir.Graph):
        return _graph_key(item, opsets)
    return tensor_key(item) if isinstance(item, ir.TensorProtocol) else repr(item)


def tensor_key(tensor: ir.TensorProtocol) -> Hashable:
    """Equal for tensors of equal type, shape and bytes."""
    shape = tuple(tensor.shape)
    if tensor.dtype == ir.DataType.STRING:
        return ("tensor", "string", shape, tuple(tensor.numpy().reshape(-1).tolist()))
    digest = hashlib.blake2b(tensor.tobytes(), digest_size=16).digest()
    return ("tensor", tensor.dtype.name, shape, digest)


def _graph_key(graph: ir.Graph, opsets: Opsets) -> Hashable:
    """What a subgraph does: its nodes in their order, their values by number."""
    numbers: dict[ir.Value, Hashable] = {}
    outer: dict[ir.Value, int] = {}
    for value in graph.inputs:
        numbers[value] = len(numbers)

    def reference(value: ir.Value | None) -> Hashable:
        if value is None:
            return None
        if value in numbers:
            return numbers[value]
        if value.const_value is not None and not value.is_graph_input():
            return tensor_key(value.const_value)
        return ("outer", outer.setdefault(value, len(outer)))

    nodes = []
    for node in graph:
        inputs = tuple(map(reference, node.inputs))
        key = (_domain(node), node.op_type, essential(node, opsets), inputs, len(node.outputs))
        nodes.append(key)
        for value in node.outputs:
            numbers[value] = len(numbers)
    return ("graph", len(graph.inputs), tuple(nodes), tuple(map(reference, graph.outputs)))


def _where(a: Hashable, b: Hashable) -> str:
    """Where two subgraphs part."""
    if not (_is_graph(a) and _is_graph(b)):
        return ""
    ours, theirs = a[2], b[2]  # type: ignore[index]
    for i, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            names = " and ".join(dict.fromkeys((one[1], other[1])))
            return f"they part at node {i + 1}, {names}"
    if len(ours) != len(theirs):
        return f"they part behind node {min(len(ours), len(theirs))}"
    return "they give other values out"


def _is_graph(key: Hashable) -> bool:
    return isinstance(key, tuple) and len(key) == 4 and key[0] == "graph"


def _shown(node: ir.Node, filled: dict[str, Hashable]) -> dict[str, Any]:
    """The attributes as JSON has them, those that are not written among them."""
    return {**{name: _plain(value) for name, value in filled.items()}, **attributes_of(node)}


def _plain(value: Hashable) -> Any:
    return list(value) if isinstance(value, tuple) else value
