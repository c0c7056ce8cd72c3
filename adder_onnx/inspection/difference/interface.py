"""What two models say of themselves: inputs, outputs, operator sets, metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from adder_onnx.inspection.difference.matching import Matching
from adder_onnx.inspection.difference.side import Side

__all__ = ["ModelDifference", "compare_interfaces"]


@dataclass(frozen=True)
class ModelDifference:
    """Something that two models say differently.

    Attributes:
        what: ``input``, ``output``, ``opset``, ``IR version``, ``producer`` or ``metadata``.
        name: of the input, the operator set or the entry, in A where it is there; else empty.
        a: what A says; None where it says nothing.
        b: what B says.
    """

    what: str
    name: str
    a: str | None
    b: str | None


def compare_interfaces(a: Side, b: Side, matching: Matching) -> list[ModelDifference]:
    """What the models say differently, in this order."""
    ours, theirs = a.proto, b.proto
    inputs = {x.name or "": y.name or "" for x, y in matching.inputs}
    outputs = {x.name or "": y.name or "" for x, y in matching.outputs}
    return [
        *_values("input", _inputs(ours), _inputs(theirs), inputs),
        *_values("output", ours.graph.output, theirs.graph.output, outputs),
        *_entries("opset", _opsets(a), _opsets(b)),
        *_entries("IR version", {"": str(ours.ir_version)}, {"": str(theirs.ir_version)}),
        *_entries("producer", _producer(ours), _producer(theirs)),
        *_entries("metadata", _metadata(ours), _metadata(theirs)),
    ]


def _values(
    what: str,
    a: Iterable[onnx.ValueInfoProto],
    b: Iterable[onnx.ValueInfoProto],
    renamed: Mapping[str, str],
) -> list[ModelDifference]:
    """Values that differ in type or shape, or in their name: then it is part of the text."""
    theirs = {value.name: value for value in b}
    found = []
    for value in a:
        other = theirs.pop(renamed.get(value.name, value.name), None)
        if other is None:
            found.append(ModelDifference(what, value.name, _type(value), None))
            continue
        one, two = _type(value), _type(other)
        if value.name != other.name:
            one, two = f"{value.name}: {one}", f"{other.name}: {two}"
        if one != two:
            found.append(ModelDifference(what, value.name, one, two))
    found += [ModelDifference(what, name, None, _type(value)) for name, value in theirs.items()]
    return found


def _entries(what: str, a: Mapping[str, str], b: Mapping[str, str]) -> list[ModelDifference]:
    return [
        ModelDifference(what, name, a.get(name), b.get(name))
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    ]


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Those that a caller gives."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _type(value: onnx.ValueInfoProto) -> str:
    type_ = value.type
    if not type_.HasField("tensor_type"):
        return str(type_.WhichOneof("value") or "").removesuffix("_type")
    name = onnx.TensorProto.DataType.Name(type_.tensor_type.elem_type).lower()
    readable = {"float": "float32", "double": "float64"}.get(name, name)
    if not type_.tensor_type.HasField("shape"):
        return f"{readable} of unknown rank"
    dims = (
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in type_.tensor_type.shape.dim
    )
    return f"{readable} {' x '.join(dims) or 'scalar'}"


def _opsets(side: Side) -> dict[str, str]:
    """Versions of the operator sets of which there are nodes."""
    used = {node.domain or "ai.onnx" for node in side.graph.graph.all_nodes()}
    imports = ((e.domain or "ai.onnx", e.version) for e in side.proto.opset_import)
    return {domain: str(version) for domain, version in imports if domain in used}


def _producer(model: onnx.ModelProto) -> dict[str, str]:
    return {"": f"{model.producer_name} {model.producer_version}".strip()}


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
