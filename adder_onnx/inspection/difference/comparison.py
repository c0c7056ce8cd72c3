"""Two models, compared: what is in one only, what differs in both, what they cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from adder_onnx.errors import InputError
from adder_onnx.inspection.cost import Operations
from adder_onnx.inspection.difference.interface import ModelDifference, compare_interfaces
from adder_onnx.inspection.difference.matching import Matching, match
from adder_onnx.inspection.difference.nodes import NodeDifference, compare_nodes
from adder_onnx.inspection.difference.side import Side, load_side, operator_of
from adder_onnx.inspection.dimensions import symbols
from adder_onnx.inspection.report import file_bytes

__all__ = ["Comparison", "LoneNode", "Totals", "compare_models"]


@dataclass(frozen=True)
class LoneNode:
    """A node that is in one of the models only.

    Attributes:
        name: of the node.
        op: operator, with the domain before it where that is not ONNX's own.
        fused_into: name of the other model's integer node that it became part of, or None.
    """

    name: str
    op: str
    fused_into: str | None


@dataclass(frozen=True)
class Totals:
    """What a model costs.

    Attributes:
        operations: of all nodes that are counted.
        not_counted: how many nodes are not.
        nodes: in the main graph.
        operators: how many nodes of each there are.
        parameters: elements of constant inputs.
        weight_bytes: of these.
        activation_bytes: of other inputs and outputs; None where a shape is not known.
        file_bytes: size of the model, external data included.
    """

    operations: Operations
    not_counted: int
    nodes: int
    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    activation_bytes: int | None
    file_bytes: int


@dataclass(frozen=True)
class Comparison:
    """What `compare_models` finds.

    Attributes:
        a: the first model.
        b: the second model.
        matching: which nodes and values are the same.
        model: what the models say of themselves that differs.
        nodes: the nodes that are matched, in the order of A.
        only_a: nodes of A that are not, in order.
        only_b: nodes of B that are not.
        totals_a: what A costs.
        totals_b: what B costs.
        assumes: numbers assumed for unknown dimensions of either model.
    """

    a: Side
    b: Side
    matching: Matching
    model: tuple[ModelDifference, ...]
    nodes: tuple[NodeDifference, ...]
    only_a: tuple[LoneNode, ...]
    only_b: tuple[LoneNode, ...]
    totals_a: Totals
    totals_b: Totals
    assumes: dict[str, int]

    @property
    def changed(self) -> list[NodeDifference]:
        """Matched nodes that differ in more than their names."""
        return [node for node in self.nodes if not node.is_equal]

    @property
    def renamed(self) -> list[NodeDifference]:
        """Matched nodes whose names differ."""
        return [node for node in self.nodes if node.is_renamed]

    @property
    def is_equal(self) -> bool:
        """Whether there is no difference, names of nodes left aside."""
        return not (self.model or self.changed or self.only_a or self.only_b)


def compare_models(
    a: str | os.PathLike[str] | bytes,
    b: str | os.PathLike[str] | bytes,
    *,
    batch_size: int = 1,
    dims: Mapping[str, int] | None = None,
) -> Comparison:
    """Compares two models; nothing is run.

    Args:
        a: an ONNX file or its bytes.
        b: another one.
        batch_size: for the first dimension of each input, where that has no number.
        dims: numbers for other symbolic dimensions, by name, of either model.

    Raises:
        ModelError: a model cannot be read or is not valid.
        InputError: a dimension is none of either model's, or its number does not fit.
    """
    dims = dims or {}
    ours, theirs = load_side(a, batch_size, dims), load_side(b, batch_size, dims)
    known = dict.fromkeys((*symbols(ours.proto), *symbols(theirs.proto)))
    for name in dims:
        if name not in known:
            raise InputError(
                f"neither model's inputs have a symbolic dimension {name!r}; theirs are "
                f"{', '.join(known) or 'none'}"
            )
    matching = match(ours, theirs)
    return Comparison(
        ours,
        theirs,
        matching,
        tuple(compare_interfaces(ours, theirs, matching)),
        tuple(compare_nodes(ours, theirs, matching)),
        _lone(matching, of_a=True),
        _lone(matching, of_a=False),
        _totals(ours),
        _totals(theirs),
        {**ours.assumes, **theirs.assumes},
    )


def _lone(matching: Matching, *, of_a: bool) -> tuple[LoneNode, ...]:
    fused: dict[str, str] = {}
    for pair in matching.pairs:
        if pair.folded is not None:
            integer = pair.b if of_a else pair.a
            if integer.op_type == "QLinearAdderConv":
                fused.update(dict.fromkeys(pair.folded.nodes, integer.name or ""))
    nodes = matching.only_a if of_a else matching.only_b
    return tuple(
        LoneNode(node.name or "", operator_of(node), fused.get(node.name or "")) for node in nodes
    )


def _totals(side: Side) -> Totals:
    costs = side.costs.values()
    counted = [cost.operations for cost in costs if cost.operations is not None]
    activations = [cost.activation_bytes for cost in costs]
    return Totals(
        sum(counted, Operations()),
        len(costs) - len(counted),
        len(side.nodes),
        dict(Counter(map(operator_of, side.nodes))),
        sum(cost.parameters for cost in costs),
        sum(cost.weight_bytes for cost in costs),
        None if None in activations else sum(size or 0 for size in activations),
        file_bytes(side.proto),
    )
