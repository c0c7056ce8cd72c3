"""What a model says of itself, described as onnxruntime does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

__all__ = ["ModelMetadata", "NodeArg", "describe_model", "describe_value"]

_LARGEST_VERSION = (1 << 63) - 1
"""What onnxruntime gives for a model without a version."""


@dataclass(frozen=True)
class NodeArg:
    """An input or output of a model.

    Attributes:
        name: its name.
        type: for example ``tensor(float)``.
        shape: for each dimension its size, the name of a symbolic one, or None.
    """

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ModelMetadata:
    """Where a model comes from, and what else its maker has written into it.

    Attributes:
        producer_name: the program that made it.
        graph_name: the graph's name.
        domain: of the model, such as ``com.example``.
        description: of the model.
        graph_description: of the graph.
        version: of the model.
        custom_metadata_map: its ``metadata_props``.
    """

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: Mapping[str, str]


def describe_model(model: onnx.ModelProto) -> ModelMetadata:
    """What a model says of itself."""
    return ModelMetadata(
        producer_name=model.producer_name,
        graph_name=model.graph.name,
        domain=model.domain,
        description=model.doc_string,
        graph_description=model.graph.doc_string,
        version=model.model_version if model.HasField("model_version") else _LARGEST_VERSION,
        custom_metadata_map={entry.key: entry.value for entry in model.metadata_props},
    )


def describe_value(value: onnx.ValueInfoProto) -> NodeArg:
    """An input or output of a model."""
    dims = value.type.tensor_type.shape.dim
    return NodeArg(value.name, _type_name(value.type), [_dimension(d) for d in dims])


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    # onnx's shape inference makes up names for what it does not know.
    return None if dim.dim_param.startswith("unk__") else (dim.dim_param or None)


def _type_name(proto: onnx.TypeProto) -> str:
    """A type as onnxruntime writes it."""
    if proto.HasField("sequence_type"):
        return f"seq({_type_name(proto.sequence_type.elem_type)})"
    if proto.HasField("optional_type"):
        return f"optional({_type_name(proto.optional_type.elem_type)})"
    if proto.HasField("map_type"):
        key = _element_name(proto.map_type.key_type)
        return f"map({key},{_type_name(proto.map_type.value_type)})"
    return f"tensor({_element_name(proto.tensor_type.elem_type)})"


def _element_name(number: int) -> str:
    return str(onnx.TensorProto.DataType.Name(number)).lower()
