"""Which nodes of a file a node of the loaded graph comes from.

Loading inlines functions and turns written-out bodies into adder nodes again. Marks that are put on
a file's nodes before, in their metadata, tell afterwards what became of them: a copy of a node in a
function has the mark of the call, too, and a restored adder node that of the loop that it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx
import onnx_ir as ir

from adder_onnx.ops import DOMAIN

__all__ = ["Origin", "mark", "origins_of", "unmark"]

_MARK = "ai.addernet.origin."


class Origin(NamedTuple):
    """A node of a file.

    Attributes:
        graph: 0 for the main graph, 1 for the file's first function, and so on.
        node: its number there, from 0.
    """

    graph: int
    node: int


def mark(model: onnx.ModelProto) -> None:
    """Marks the nodes of a model as it was written; those inside control flow stay as they are."""
    for graph, nodes in _graphs(model):
        for i, node in enumerate(nodes):
            _clear(node)
            node.metadata_props.add(key=f"{_MARK}{graph}", value=str(i))


def unmark(model: onnx.ModelProto) -> None:
    """Removes all marks."""
    for _, nodes in _graphs(model):
        for node in nodes:
            _clear(node)


def origins_of(node: ir.Node) -> tuple[Origin, ...]:
    """What a node of the loaded graph comes from.

    That is one node of the main graph and, where this is a call, those of the functions that have
    been inlined in its place; nothing for a node that loading has added.
    """
    return tuple(
        sorted(
            Origin(int(key.removeprefix(_MARK)), int(value))
            for key, value in node.metadata_props.items()
            if key.startswith(_MARK)
        )
    )


def _graphs(model: onnx.ModelProto) -> Iterator[tuple[int, Sequence[onnx.NodeProto]]]:
    yield 0, model.graph.node
    for i, function in enumerate(model.functions, 1):
        if function.domain != DOMAIN:  # loading compares these with our own, and drops them
            yield i, function.node


def _clear(node: onnx.NodeProto) -> None:
    kept = [entry for entry in node.metadata_props if not entry.key.startswith(_MARK)]
    if len(kept) < len(node.metadata_props):
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
