"""All messages of a model, and the text in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor

from adder_onnx.errors import ModelError

__all__ = ["MOST_NESTED", "Found", "messages"]

MOST_NESTED = 25
"""Graphs inside of graphs; protobuf reads some 30, and Python's stack ends soon after."""

_MOST = 5_000_000
"""Messages of a model: those of a node are some five."""


class Found(NamedTuple):
    """A message of a model.

    Attributes:
        message: a protobuf message of onnx.
        nesting: how many graphs it lies in.
        in_function: whether it is part of a local function.
    """

    message: Any
    nesting: int
    in_function: bool


def messages(model: onnx.ModelProto) -> Iterator[Found]:
    """The model and all messages in it, each after what it lies in; their text is text.

    Raises:
        ModelError: there are too many, graphs are nested too deeply, or a text is not UTF-8.
    """
    stack = [Found(model, 0, False)]
    count = 1
    while stack:
        found = stack.pop()
        yield found
        inner = _inside(found)
        count += len(inner)
        if count > _MOST:
            raise ModelError(f"the model has more than {_MOST:,} nodes, values and attributes")
        stack += reversed(inner)


def _inside(found: Found) -> list[Found]:
    message, nesting, in_function = found
    kind = type(message)
    texts, parts = _fields(kind)  # type: ignore[arg-type]
    for name in texts:
        _check_text(message, name)
    if kind is onnx.GraphProto:
        nesting += 1
        if nesting > MOST_NESTED:
            raise ModelError(f"graphs of the model are nested more than {MOST_NESTED} deep")
    in_function = in_function or kind is onnx.FunctionProto
    inner = []
    for name, is_repeated in parts:
        if is_repeated:
            inner += [Found(part, nesting, in_function) for part in getattr(message, name)]
        elif message.HasField(name):
            inner.append(Found(getattr(message, name), nesting, in_function))
    return inner


def _check_text(message: Any, name: str) -> None:
    try:
        value = getattr(message, name)
        # Of what is not UTF-8, some versions of protobuf make bytes, others raise.
        is_text = isinstance(value, str) or (
            not isinstance(value, bytes) and all(isinstance(text, str) for text in value)
        )
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise ModelError(f"the {name} of a {type(message).__name__} in the model is not UTF-8")


@cache
def _fields(kind: Any) -> tuple[tuple[str, ...], tuple[tuple[str, bool], ...]]:
    """The names of a message's fields of text, and of those of messages: whether it has several."""
    fields = kind.DESCRIPTOR.fields
    default = kind()
    return (
        tuple(field.name for field in fields if field.type == FieldDescriptor.TYPE_STRING),
        tuple(
            (field.name, hasattr(getattr(default, field.name), "extend"))
            for field in fields
            if field.type == FieldDescriptor.TYPE_MESSAGE
        ),
    )
