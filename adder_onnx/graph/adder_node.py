"""Adder nodes of a plan: AdderConv with its constants and the epilogue fused into it.

Inside a plan's graph such a node is called FusedAdderConv; it takes X, W and, after a residual
addition was fused, Z. It has no schema and is never written to a file. A QLinearAdderConv with
constant parameters is an adder node as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.ops import DOMAIN, ConvAttributes

__all__ = [
    "AdderNode",
    "Epilogue",
    "Integers",
    "PackedWeight",
    "adder_node",
    "constant",
    "epilogue_of",
    "is_adder_node",
    "is_float_adder_node",
    "is_integer_adder_node",
    "mark_adder_nodes",
    "set_epilogue",
    "value_name",
]

_FUSED = "FusedAdderConv"
_EPILOGUE = "adder_onnx.epilogue"
_INTEGER = "adder_onnx.integer"
_Z = 6
"""The number of the residual among the inputs of QLinearAdderConv."""
_Y_SCALE = 9
_PER_FILTER = (4, 5)
_SCALARS = (2, 3, 7, 8, 9, 10)

_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class Epilogue:
    """What follows the sum: ``y = min(max(scale * sum + bias + Z, clip_min), clip_max)``.

    Attributes:
        scale: (M,), float64 while fusing, so that composing rounds once.
        bias: (M,), float64.
        has_residual: whether the node's third input Z, of the output's shape, is added.
        clip_min: lower bound, -inf for none.
        clip_max: upper bound, inf for none.
        fused: names of the nodes that became part of the epilogue, in their order.
    """

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    has_residual: bool = False
    clip_min: float = -math.inf
    clip_max: float = math.inf
    fused: tuple[str, ...] = ()

    @property
    def is_clipped(self) -> bool:
        return self.clip_min > -math.inf or self.clip_max < math.inf

    @property
    def is_affine(self) -> bool:
        """Whether a further scale and bias can be composed into this epilogue."""
        return not (self.has_residual or self.is_clipped)

    def then(self, node: ir.Node, **changes: Any) -> Epilogue:
        """A copy with ``changes``, into which ``node`` was fused."""
        return replace(self, fused=(*self.fused, node.name or ""), **changes)


@dataclass(frozen=True)
class Integers:
    """What an integer adder node has beyond a float one; see the schema of QLinearAdderConv.

    Attributes:
        x_zero_point: of the input and the weight.
        z_scale: of the residual.
        z_zero_point: of the residual.
        y_scale: of the output.
        y_zero_point: of the output.
        bits: the output is at most 2**bits - 1.
        levels: the only values of the output, rising; none for all.
    """

    x_zero_point: int
    z_scale: float
    z_zero_point: int
    y_scale: float
    y_zero_point: int
    bits: int
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class PackedWeight:
    """What a plan keeps of a constant weight that the kernels have a copy of.

    Attributes:
        shape: (M, C/group, kH, kW).
    """

    shape: tuple[int, ...]


@dataclass(frozen=True)
class AdderNode:
    """An adder node as the kernels see it.

    Attributes:
        name: the AdderConv's name.
        x: name of the input, (N, C, H, W).
        residual: name of the residual, (N, M, oH, oW), or None.
        y: name of the output, (N, M, oH, oW).
        type: ``float32``, ``float16`` or ``uint8``: that of x, y, the residual and the weight in
            the graph.
        weight: (M, C/group, kH, kW), float32, or uint8 for an integer node; its shape, once the
            kernels have packed it; or the name of a computed value of that shape.
        scale: (M,), float32; for an integer node with the input's scale in it.
        bias: (M,), float32.
        clip_min: lower bound of the output, -inf for none.
        clip_max: upper bound of the output, inf for none.
        attributes: strides, pads, dilations, group.
        fused: names of the nodes in the epilogue, in their order.
        integers: of an integer node, else None.
    """

    name: str
    x: str
    residual: str | None
    y: str
    type: str
    weight: NDArray[np.float32] | NDArray[np.uint8] | PackedWeight | str
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    clip_min: float
    clip_max: float
    attributes: ConvAttributes
    fused: tuple[str, ...]
    integers: Integers | None = None

    def without_weight(self) -> AdderNode:
        """The same node, but of a constant weight the shape only."""
        if isinstance(self.weight, str):
            return self
        return replace(self, weight=PackedWeight(self.weight.shape))


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a constant value, or None for a value that is computed or an input."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def mark_adder_nodes(graph: ir.Graph, *, integers: bool = True) -> list[ir.Node]:
    """Turns every node of ours that our kernels can execute into an adder node of the plan.

    These are the float32 and float16 AdderConv in the main graph whose number of filters is known
    and whose image is no constant, and the QLinearAdderConv there whose parameters are constant, of
    the schema's shapes, and whose output has a positive, finite scale.

    Args:
        graph: the main graph.
        integers: whether QLinearAdderConv are among them.

    Returns:
        The nodes of ours that are left to onnxruntime and their function body.
    """
    left = []
    for node in graph.all_nodes():
        if (node.domain, node.op_type) == (DOMAIN, "QLinearAdderConv"):
            if integers and node.graph is graph and _has_constant_parameters(node):
                node.meta[_INTEGER] = True
            else:
                left.append(node)
            continue
        if (node.domain, node.op_type) != (DOMAIN, "AdderConv"):
            continue
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None
        assert weight is not None
        filters = weight.shape[0] if weight.shape is not None else None
        is_image = x.dtype in _TYPES and constant(x) is None
        if node.graph is graph and is_image and isinstance(filters, int):
            node.op_type = _FUSED
            set_epilogue(node, Epilogue(np.ones(filters), np.zeros(filters)))
        else:
            left.append(node)
    return left


def _has_constant_parameters(node: ir.Node) -> bool:
    """Whether all inputs but X and Z are constants, and Z is not one unless it adds nothing.

    They must have the schema's shapes, and the output's scale be positive and finite, too: the
    kernels divide by it.
    """
    values = [constant(value) for value in node.inputs]
    z, z_zero_point = values[_Z], values[_Z + 2]
    if z is not None and (z.ndim or z.item() or z_zero_point is None or z_zero_point.any()):
        return False
    others = [value for i, value in enumerate(values) if i not in (0, _Z)]
    if values[0] is not None or any(value is None for value in others):
        return False
    weight, y_scale = values[1], values[_Y_SCALE]
    assert weight is not None
    assert y_scale is not None
    per_filter = [values[i].shape == weight.shape[:1] for i in _PER_FILTER]  # type: ignore[union-attr]
    scalars = [values[i].size == 1 for i in _SCALARS]  # type: ignore[union-attr]
    if weight.ndim != 4 or not all((*per_filter, *scalars)):
        return False
    return 0 < float(y_scale.item()) < math.inf


def is_adder_node(node: ir.Node) -> bool:
    """Whether our kernels execute a node."""
    return is_float_adder_node(node) or is_integer_adder_node(node)


def is_float_adder_node(node: ir.Node) -> bool:
    """Whether it is one that has an epilogue, which more can be fused into."""
    return (node.domain, node.op_type) == (DOMAIN, _FUSED)


def is_integer_adder_node(node: ir.Node) -> bool:
    """Whether it is a QLinearAdderConv."""
    return bool(node.meta.get(_INTEGER))


def epilogue_of(node: ir.Node) -> Epilogue:
    """The epilogue of an adder node."""
    found = node.meta[_EPILOGUE]
    assert isinstance(found, Epilogue)
    return found


def set_epilogue(node: ir.Node, epilogue: Epilogue) -> None:
    node.meta[_EPILOGUE] = epilogue


def adder_node(node: ir.Node) -> AdderNode:
    """The kernels' view of an adder node."""
    if not is_float_adder_node(node):
        return _integer_adder_node(node)
    epilogue = epilogue_of(node)
    weight = constant(node.inputs[1])
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return AdderNode(
        name=node.name or value_name(node.outputs[0]),
        x=value_name(node.inputs[0]),
        residual=value_name(node.inputs[2]) if epilogue.has_residual else None,
        y=value_name(node.outputs[0]),
        type=_type(node.inputs[0]),
        weight=(
            value_name(node.inputs[1])
            if weight is None
            else np.ascontiguousarray(weight, np.float32)
        ),
        scale=epilogue.scale.astype(np.float32),
        bias=epilogue.bias.astype(np.float32),
        clip_min=epilogue.clip_min,
        clip_max=epilogue.clip_max,
        attributes=ConvAttributes.from_mapping(attributes),
        fused=epilogue.fused,
    )


def _integer_adder_node(node: ir.Node) -> AdderNode:
    parameters = {
        i: value.const_value.numpy()
        for i, value in enumerate(node.inputs)
        if value is not None and value.const_value is not None
    }
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    factor = np.float32(parameters[2].item()) * parameters[4].astype(np.float32)
    return AdderNode(
        name=node.name or value_name(node.outputs[0]),
        x=value_name(node.inputs[0]),
        # A scalar zero stands for none.
        residual=None if _Z in parameters else value_name(node.inputs[_Z]),
        y=value_name(node.outputs[0]),
        type="uint8",
        weight=np.ascontiguousarray(parameters[1], np.uint8),
        scale=np.ascontiguousarray(factor, np.float32),
        bias=np.ascontiguousarray(parameters[5], np.float32),
        clip_min=float(attributes.get("clip_min", -math.inf)),
        clip_max=math.inf,
        attributes=ConvAttributes.from_mapping(attributes),
        fused=(),
        integers=Integers(
            int(parameters[3].item()),
            float(parameters[7].item()),
            int(parameters[8].item()),
            float(parameters[9].item()),
            int(parameters[10].item()),
            int(attributes.get("bits", 8)),
            tuple(map(int, attributes.get("levels", ()))),
        ),
    )


def _type(value: ir.Value | None) -> str:
    assert value is not None
    assert value.dtype is not None
    return str(value.dtype.numpy())


def value_name(value: ir.Value | None) -> str:
    """The name of a value, which every value in a valid graph has."""
    assert value is not None
    assert value.name
    return value.name
