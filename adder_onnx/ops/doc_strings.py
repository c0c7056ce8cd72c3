"""What a model says of itself and of its adder nodes, for people who look at it in a viewer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

import onnx

from adder_onnx.ops.domain import DOMAIN

__all__ = ["describe_model", "describe_nodes"]

_ARCHITECTURE = "ai.addernet.architecture"
_LONGEST_NAME = 100
_Z = 6
"""Number of QLinearAdderConv's input that is added, a scalar 0 where there is none."""

_HOW_TO_RUN = (
    "Run it with adder-run MODEL.onnx --data IMAGES, or in Python with "
    "adder_onnx.InferenceSession. onnxruntime runs it too, slowly, by the function bodies in the "
    "file."
)


_Dims = list[int | None] | None
"""Sizes, None for one that is not known; None where the rank is not known."""


def describe_model(model: onnx.ModelProto, *facts: str) -> str:
    """A few sentences: what the model is, facts about it, and how to run it."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    name = " ".join(metadata.get(_ARCHITECTURE, "").split())[:_LONGEST_NAME]
    counts = {
        op: sum(_is(node, op) for node in model.graph.node)
        for op in ("AdderConv", "QLinearAdderConv")
    }
    layers = " and ".join(f"{count} {op}" for op, count in counts.items() if count)
    among = f"{layers or 'no adder layer'} among {len(model.graph.node)} nodes."
    return " ".join((f"{name or 'A network'}: {among}", *facts, _HOW_TO_RUN))


def describe_nodes(model: onnx.ModelProto) -> None:
    """Gives each adder node of the main graph a line that says what it computes, and how much."""
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes: dict[str, _Dims] = {value.name: _dims(value) for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if _is(node, "AdderConv"):
            node.doc_string = f"Adder layer, y = -sum |x - w|{_sizes(node, shapes)}"
        elif _is(node, "QLinearAdderConv"):
            node.doc_string = f"{_integer_layer(node, shapes)}{_sizes(node, shapes)}"


def _integer_layer(node: onnx.NodeProto, shapes: Mapping[str, _Dims]) -> str:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    formula = "-scale * sum |x - w| + bias"
    if shapes.get(node.input[_Z]) != []:
        formula += " + z"
    if values.get("clip_min", -math.inf) > -math.inf:
        formula = f"max({formula}, {values['clip_min']:g})"
    outputs = f"{values.get('bits', 8)} bits"
    if values.get("levels"):
        outputs = f"{len(values['levels'])} levels of {outputs}"
    return f"Adder layer on integers, y = {formula}, rounded to {outputs}"


def _sizes(node: onnx.NodeProto, shapes: Mapping[str, _Dims]) -> str:
    """The taps, the filters, and an image before and after; as much as is known."""
    w = shapes.get(node.input[1])
    x, y = ((shapes.get(name) or [])[1:] for name in (node.input[0], node.output[0]))
    parts = []
    if _known(w) and _known(y):
        parts.append(f"{math.prod(y) * math.prod(w[1:]):,} taps an image")
    if _known(w):
        parts.append(f"{w[0]} filters of {_times(w[1:])}")
    if _known(x) and _known(y):
        parts.append(f"{_times(x)} to {_times(y)}")
    return f": {'; '.join(parts)}" if parts else ""


def _known(dims: _Dims) -> TypeGuard[list[int]]:
    return dims is not None and len(dims) > 0 and None not in dims


def _times(dims: list[int]) -> str:
    return " x ".join(map(str, dims))


def _dims(value: onnx.ValueInfoProto) -> _Dims:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _is(node: onnx.NodeProto, op: str) -> bool:
    return node.domain == DOMAIN and node.op_type == op
