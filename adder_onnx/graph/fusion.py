"""Fusing what follows an adder node into its epilogue.

A node is fused where

1. it consumes the adder node's output, which has no other use and is not an output of the graph;
2. and it is one of
   a. BatchNormalization in inference mode with constant parameters, folded into scale and bias;
   b. Mul or Add with a constant of one value per filter, (M, 1, 1) or (1, M, 1, 1), likewise;
   c. Add with a value, no constant, of the same type and provably the same shape: the residual;
   d. Relu, or Clip with constant bounds (ReLU6 is one): the clip;
3. and the epilogue's order scale, bias, residual, clip allows it: a and b not after c or d, c not
   after c or d, d not after d.

The adder node then stands where the fused node stood and produces its output.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import (
    Epilogue,
    constant,
    epilogue_of,
    is_float_adder_node,
    set_epilogue,
)

__all__ = ["fuse_epilogues"]


def fuse_epilogues(graph: ir.Graph) -> int:
    """Fuses all that the rules allow; returns the number of nodes that were fused."""
    count = 0
    for node in list(graph):
        if is_float_adder_node(node):
            while _fuse_consumer(graph, node):
                count += 1
    return count


def _fuse_consumer(graph: ir.Graph, node: ir.Node) -> bool:
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return False
    consumer = uses[0].node
    rule = _RULES.get(consumer.op_type) if consumer.domain in ("", "ai.onnx") else None
    if rule is None or consumer.graph is not graph:
        return False
    fused = rule(epilogue_of(node), output, consumer)
    if fused is None:
        return False
    epilogue, residual = fused
    set_epilogue(node, epilogue)
    if residual is not None:
        node.resize_inputs(3)
        node.replace_input_with(2, residual)
    _take_place(graph, node, consumer)
    return True


def _take_place(graph: ir.Graph, node: ir.Node, consumer: ir.Node) -> None:
    """Moves ``node`` to where ``consumer`` stands, gives it that one's output, and removes that."""
    graph.remove(node)
    graph.insert_after(consumer, node)
    old, new = consumer.outputs[0], node.outputs[0]
    name, shape, type_ = old.name, old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(consumer, safe=True)
    new.name, new.shape, new.type = name, shape, type_


_Fused = tuple[Epilogue, ir.Value | None]
"""The new epilogue and the residual that the node takes from now on, if any."""


def _fuse_batch_normalization(epilogue: Epilogue, output: ir.Value, node: ir.Node) -> _Fused | None:
    """Y = (x - mean) / sqrt(var + epsilon) * gamma + beta."""
    parameters = [constant(value) for value in node.inputs[1:]]
    training = node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1
    if not epilogue.is_affine or training:
        return None
    if any(p is None or p.shape != epilogue.scale.shape for p in parameters):
        return None
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    factor = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return epilogue.then(
        node, scale=epilogue.scale * factor, bias=(epilogue.bias - mean) * factor + beta
    ), None


def _fuse_mul(epilogue: Epilogue, output: ir.Value, node: ir.Node) -> _Fused | None:
    factor = _per_filter(_other_operand(node, output), epilogue)
    if factor is None or not epilogue.is_affine:
        return None
    return epilogue.then(node, scale=epilogue.scale * factor, bias=epilogue.bias * factor), None


def _fuse_add(epilogue: Epilogue, output: ir.Value, node: ir.Node) -> _Fused | None:
    if not epilogue.is_affine:
        return None
    other = _other_operand(node, output)
    addend = _per_filter(other, epilogue)
    if addend is not None:
        return epilogue.then(node, bias=epilogue.bias + addend), None
    if constant(other) is not None or not _same_shape(other, output):
        return None
    return epilogue.then(node, has_residual=True), other


def _fuse_relu(epilogue: Epilogue, output: ir.Value, node: ir.Node) -> _Fused | None:
    return None if epilogue.is_clipped else (epilogue.then(node, clip_min=0.0), None)


def _fuse_clip(epilogue: Epilogue, output: ir.Value, node: ir.Node) -> _Fused | None:
    """Clip since opset 11, whose bounds are optional inputs; before, they are attributes."""
    if epilogue.is_clipped:
        return None
    bounds = {
        "clip_min": node.attributes.get_float("min", -math.inf),
        "clip_max": node.attributes.get_float("max", math.inf),
    }
    for name, value in zip(bounds, node.inputs[1:], strict=False):
        if value is None:
            continue
        bound = constant(value)
        if bound is None or bound.size != 1:
            return None
        bounds[name] = float(bound.item())
    return epilogue.then(node, **bounds), None


_RULES: dict[str, Callable[[Epilogue, ir.Value, ir.Node], _Fused | None]] = {
    "Add": _fuse_add,
    "BatchNormalization": _fuse_batch_normalization,
    "Clip": _fuse_clip,
    "Mul": _fuse_mul,
    "Relu": _fuse_relu,
}


def _other_operand(node: ir.Node, output: ir.Value) -> ir.Value:
    other = node.inputs[1] if node.inputs[0] is output else node.inputs[0]
    assert other is not None
    return other


def _per_filter(value: ir.Value, epilogue: Epilogue) -> NDArray[np.float64] | None:
    """The M values of a constant that broadcasts over everything but the channels."""
    array = constant(value)
    filters = epilogue.scale.shape[0]
    if array is None or array.shape not in ((filters, 1, 1), (1, filters, 1, 1)):
        return None
    values: NDArray[np.float64] = np.asarray(array, np.float64).reshape(filters)
    return values


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    """Whether two values are known to have the same shape: equal numbers, equal symbols."""
    if a.shape is None or b.shape is None or a.shape.rank() != b.shape.rank():
        return False
    return all(
        x == y and not (isinstance(x, ir.SymbolicDim) and x.value is None)
        for x, y in zip(a.shape, b.shape, strict=True)
    )
