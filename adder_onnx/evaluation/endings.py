"""The node that an output's values come from.

From the output the graph is walked back through nodes that change neither the order of the values
nor what they stand for:

1. Identity, and Dropout that cannot be in training, where it does nothing;
2. Flatten, Reshape, Squeeze and Unsqueeze;
3. Cast between floating-point types where the output is a float, between integers where it is one;
4. QuantizeLinear and DequantizeLinear, which round.

The first other node is the ending, if it runs in onnxruntime. All devices have the same plan, so
that an ending does not depend on where the model runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto

from adder_onnx.graph.checks.foreign import refusals
from adder_onnx.graph.plan import OnnxruntimeStep, Plan

__all__ = ["Ending", "Endings"]

_DOMAINS = ("", "ai.onnx", "com.microsoft")

_KEEPS = frozenset(
    (
        *("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
        *("QuantizeLinear", "DequantizeLinear"),
    )
)

_FLOATS = frozenset(
    (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
)
_INTEGERS = frozenset(
    getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)

_SMALL_BYTES = 4096
"""Constants up to this size may be shapes or axes, which the inference of shapes looks into."""


@dataclass(frozen=True)
class Ending:
    """A node that an output's values come from.

    Attributes:
        node: the node.
        opset: of the standard operators in its sub-model.
        shape: of its first input, with None for a size that is not known; None where nothing is.
    """

    node: onnx.NodeProto
    opset: int
    shape: tuple[int | None, ...] | None

    def attribute(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return next((int(a.i) for a in self.node.attribute if a.name == name), default)

    def axis(self, default: int) -> int | None:
        """The attribute ``axis`` from the front; None where the rank is not known."""
        if self.shape is None:
            return None
        axis = self.attribute("axis", default)
        return axis + len(self.shape) if axis < 0 else axis


class Endings:
    """The endings of a model's outputs.

    Args:
        plan: of the model.
    """

    def __init__(self, plan: Plan) -> None:
        models = [_SubModel(s.model) for s in plan.steps if isinstance(s, OnnxruntimeStep)]
        self._makers = {
            name: (node, model)
            for model in models
            for node in model.proto.graph.node
            for name in node.output[:1]
        }

    def find(self, output: str, *, integer: bool = False) -> Ending | None:
        """The node that the values of an output come from.

        Args:
            output: a name.
            integer: whether the output is an integer, not a float.

        Returns:
            The ending; None where that is an adder node, or the output is an input or a constant.
        """
        types = _INTEGERS if integer else _FLOATS
        name = output
        while name in self._makers:
            node, model = self._makers[name]
            if node.domain not in _DOMAINS:
                return None
            if not _keeps_values(node, types):
                shape = model.shapes.get(node.input[0]) if node.input else None
                return Ending(node, model.opset, shape)
            name = node.input[0]
        return None


class _SubModel:
    """A sub-model and the shapes in it, which are found out once they are asked for."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto

    @property
    def opset(self) -> int:
        versions = {entry.domain: entry.version for entry in self.proto.opset_import}
        return int(versions.get("", versions.get("ai.onnx", 0)))

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        with refusals("shapes contradict each other"):
            graph = onnx.shape_inference.infer_shapes(_without_weights(self.proto)).graph
        return {
            value.name: tuple(_size(dim) for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }


def _keeps_values(node: onnx.NodeProto, types: frozenset[int]) -> bool:
    if node.op_type == "Cast":
        return any(a.name == "to" and a.i in types for a in node.attribute)
    if node.op_type == "Dropout":
        return "" in (*node.input, "")[2:3]  # the third input, if any, says that it is in training
    return node.op_type in _KEEPS


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") else None


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants are inputs, so that the inference does not copy them, too."""
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    copy.graph.node.extend(graph.node)
    copy.graph.input.extend(graph.input)
    copy.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        if tensor.ByteSize() <= _SMALL_BYTES:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return copy
