"""Which functions a model's functions call, and what inlining them all would make of the model.

A function that calls another one twice, which calls a third one twice, and so on, would make any
number of nodes out of a small file; so it is counted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import onnx

from adder_onnx.errors import ModelError
from adder_onnx.graph.checks.messages import MOST_NESTED
from adder_onnx.memory import require

__all__ = ["check_calls"]

_MOST_NODES = 1_000_000

_Id = tuple[str, str, str]
"""Domain, name and overload of a function."""


class _Size(NamedTuple):
    """What a body is once all calls in it are inlined.

    Attributes:
        nodes: how many, those of inner graphs included.
        nesting: how many graphs lie in each other, at most.
        bytes: of its nodes as a file has them.
    """

    nodes: int
    nesting: int
    bytes: int


def check_calls(model: onnx.ModelProto) -> None:
    """Checks that a model's local functions can be inlined.

    Raises:
        ModelError: two have the same name, they call each other in a circle, or inlining makes too
            many nodes, nests graphs too deeply, or takes too much memory.
    """
    functions: dict[_Id, onnx.FunctionProto] = {}
    for function in model.functions:
        name = (function.domain, function.name, getattr(function, "overload", ""))
        if name in functions:
            raise ModelError(f"the model has the function {_called(name)} more than once")
        functions[name] = function
    sizes: dict[_Id, _Size] = {}
    for name in _by_calls(functions):
        sizes[name] = _size(functions[name].node, sizes)
    nodes, nesting, size = _size(model.graph.node, sizes)
    if nodes > _MOST_NODES and functions:
        raise ModelError(
            f"the model's functions would become {_count(nodes)} nodes, more than {_MOST_NODES:,}"
        )
    if nesting > MOST_NESTED:
        raise ModelError(
            f"the model's functions nest graphs {nesting} deep, more than {MOST_NESTED}"
        )
    require(size, "the model with its functions inlined", ModelError)


def _count(number: int) -> str:
    """A number that may have thousands of digits."""
    return f"{number:,}" if number < 10**15 else f"2**{number.bit_length() - 1}"


def _size(nodes: Iterable[onnx.NodeProto], sizes: Mapping[_Id, _Size]) -> _Size:
    count, deepest, size = 0, 1, 0
    for node, nesting in _all_nodes(nodes):
        called = sizes.get(_callee(node), _Size(1, 1, 0))
        count += called.nodes
        deepest = max(deepest, nesting + called.nesting - 1)
        # What a call carries of metadata, each node of the body carries afterwards.
        metadata = sum(entry.ByteSize() for entry in node.metadata_props)
        size += called.bytes + called.nodes * metadata + (node.ByteSize() if nesting == 1 else 0)
    return _Size(count, deepest, size)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Nodes and those in their graphs, each with the number of graphs that it lies in."""
    stack = [(node, 1) for node in nodes]
    while stack:
        node, nesting = stack.pop()
        yield node, nesting
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                stack += [(inner, nesting + 1) for inner in graph.node]


def _callee(node: onnx.NodeProto) -> _Id:
    return (node.domain, node.op_type, getattr(node, "overload", ""))


def _by_calls(functions: Mapping[_Id, onnx.FunctionProto]) -> list[_Id]:
    """The functions, each after those that it calls.

    Raises:
        ModelError: there is no such order.
    """
    calls = {
        name: {_callee(node) for node, _ in _all_nodes(function.node)} & functions.keys()
        for name, function in functions.items()
    }
    order: dict[_Id, None] = {}
    for root, called in calls.items():
        begun: dict[_Id, list[_Id]] = {} if root in order else {root: sorted(called)}
        while begun:
            name, missing = next(reversed(begun.items()))
            if not missing:
                order[name] = None
                del begun[name]
                continue
            callee = missing.pop()
            if callee in begun:
                raise ModelError(f"the model's function {_called(callee)} calls itself")
            if callee not in order:
                begun[callee] = sorted(calls[callee])
    return list(order)


def _called(name: _Id) -> str:
    return ".".join(filter(None, name))
