"""Putting numbers in the place of the unknown dimensions of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from adder_onnx.errors import InputError

__all__ = ["assume", "symbols"]

_LARGEST = 2**63 - 1


def symbols(model: onnx.ModelProto) -> list[str]:
    """Names of the symbolic dimensions of a model's inputs, in their order."""
    return list(
        dict.fromkeys(
            dim.dim_param
            for value in _inputs(model)
            for dim in value.type.tensor_type.shape.dim
            if dim.dim_param
        )
    )


def assume(
    model: onnx.ModelProto, batch_size: int, given: Mapping[str, int]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A copy of a model whose inputs have numbers for dimensions.

    Args:
        model: is not changed.
        batch_size: for the first dimension of each input, where that has no number.
        given: numbers by the names of symbolic dimensions; they win.

    Returns:
        The copy, and what was assumed, by name; a dimension without a name is called after its
        input and its place, ``input[0]``.

    Raises:
        InputError: a name is not that of a symbolic dimension, or a number is too large for one.
    """
    known = symbols(model)
    for name in given:
        if name not in known:
            raise InputError(
                f"the model's inputs have no symbolic dimension {name!r}; theirs are "
                f"{', '.join(known) or 'none'}"
            )
    for number in (batch_size, *given.values()):
        if number > _LARGEST:
            raise InputError(f"a dimension is too large; the largest number is {_LARGEST}")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assumed = dict(given)
    for value in _inputs(copy):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            name = dims[0].dim_param
            if not name:
                dims[0].dim_value = assumed[f"{value.name}[0]"] = batch_size
            else:
                assumed.setdefault(name, batch_size)
    for value in _inputs(copy):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in assumed:
                dim.dim_value = assumed[dim.dim_param]
    return copy, assumed


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: tensors that are no initializers."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [
        value
        for value in model.graph.input
        if value.name not in initializers and value.type.HasField("tensor_type")
    ]
