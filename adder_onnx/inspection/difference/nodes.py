"""How two matched nodes differ: operator, attributes, what feeds them, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from adder_onnx.inspection.difference.attributes import AttributeDifference, compare_attributes
from adder_onnx.inspection.difference.constants import (
    WeightDifference,
    compare_constants,
    constant_input,
    is_constant,
    with_clamped,
)
from adder_onnx.inspection.difference.matching import Matching, Pair, is_commutative, slots_of
from adder_onnx.inspection.difference.side import Side, operator_of

__all__ = ["FeedDifference", "NodeDifference", "Source", "compare_nodes"]

_X, _W = 0, 1


@dataclass(frozen=True)
class Source:
    """Where an input comes from.

    Attributes:
        value: name of the value.
        node: name of the node that gives it; None for an input of the graph or a constant.
        is_constant: whether it is one.
    """

    value: str
    node: str | None
    is_constant: bool


@dataclass(frozen=True)
class FeedDifference:
    """An input that comes from elsewhere.

    Attributes:
        input: what the operator calls it.
        a: where it comes from in A; None where it is left out.
        b: the same in B.
    """

    input: str
    a: Source | None
    b: Source | None


@dataclass(frozen=True)
class NodeDifference:
    """Two nodes that are matched.

    Attributes:
        a: name in A.
        b: name in B.
        op_a: operator in A, with its domain where that is not ONNX's own.
        op_b: the same in B.
        how: how they were matched, see `matching`.
        attributes: those that differ.
        feeds: the inputs that come from elsewhere.
        weights: the constant inputs that differ.
    """

    a: str
    b: str
    op_a: str
    op_b: str
    how: str
    attributes: tuple[AttributeDifference, ...]
    feeds: tuple[FeedDifference, ...]
    weights: tuple[WeightDifference, ...]

    @property
    def is_renamed(self) -> bool:
        """Whether the names differ."""
        return self.a != self.b

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs but, perhaps, the names."""
        parts = (*self.attributes, *self.feeds, *self.weights)
        return self.op_a == self.op_b and not parts


def compare_nodes(side_a: Side, side_b: Side, matching: Matching) -> Iterator[NodeDifference]:
    """How the nodes of each pair differ, in their order."""
    comparison = _Comparison(side_a, side_b, matching)
    for pair in matching.pairs:
        yield comparison.compare(pair)


class _Comparison:
    def __init__(self, side_a: Side, side_b: Side, matching: Matching) -> None:
        self._opsets = side_a.graph.opset_imports, side_b.graph.opset_imports
        self._matching = matching
        self._weights: dict[tuple[str, ir.Value, ir.Value], WeightDifference | None] = {}

    def compare(self, pair: Pair) -> NodeDifference:
        a, b = pair.a, pair.b
        op_a, op_b = operator_of(a), operator_of(b)
        attributes: list[AttributeDifference] = []
        if pair.folded is not None:
            own = ("bits", "clip_min", "levels")
            every = compare_attributes(a, b, *self._opsets)
            attributes = [difference for difference in every if difference.name not in own]
        elif op_a == op_b:
            attributes = compare_attributes(a, b, *self._opsets)
        feeds, weights = self._inputs(pair) if op_a == op_b or pair.folded else ([], [])
        return NodeDifference(
            a.name or "",
            b.name or "",
            op_a,
            op_b,
            pair.how,
            tuple(attributes),
            tuple(feeds),
            tuple(weights),
        )

    def _inputs(self, pair: Pair) -> tuple[list[FeedDifference], list[WeightDifference]]:
        feeds, weights = [], []
        for name, place_a, place_b, ours, theirs in self._slots(pair):
            if self._means_the_same(ours, theirs):
                continue
            if is_constant(ours) and is_constant(theirs):
                difference = self._weight(name, pair, place_a, place_b)
                if difference is not None:
                    weights.append(difference)
            else:
                feeds.append(FeedDifference(name, _source(ours), _source(theirs)))
        if pair.folded is not None:
            weights += pair.folded.weights
        return feeds, weights

    def _slots(self, pair: Pair) -> list[tuple[str, int, int, ir.Value | None, ir.Value | None]]:
        """Inputs that belong together: what they are called, their places, their values."""
        names = _input_names(pair.a)
        if pair.folded is not None:
            slots = [(names[i], i, i, pair.a.inputs[i], pair.b.inputs[i]) for i in (_X, _W)]
            return [*slots, ("Z", -1, -1, *pair.folded.residuals)]
        ours, theirs = slots_of(pair.a), slots_of(pair.b)
        order = list(range(len(theirs)))
        if is_commutative(pair.a):
            order = self._aligned(ours, theirs)
        found = []
        for i in range(max(len(ours), len(theirs))):
            j = order[i] if i < len(order) else i
            one = ours[i] if i < len(ours) else None
            other = theirs[j] if j < len(theirs) else None
            found.append((names[i] if i < len(names) else f"input {i}", i, j, one, other))
        return found

    def _aligned(self, ours: list[ir.Value | None], theirs: list[ir.Value | None]) -> list[int]:
        """The order of B's inputs in which as many as possible are those of A."""
        left = list(range(len(theirs)))
        found: list[int | None] = []
        for value in ours:
            same = (j for j in left if self._means_the_same(value, theirs[j]))
            place = next(same, None)
            if place is not None:
                left.remove(place)
            found.append(place)
        return [left.pop(0) if place is None and left else place or 0 for place in found] + left

    def _means_the_same(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        if a is None or b is None:
            return a is b
        number = self._matching.ids_a.get(a)
        return number is not None and number == self._matching.ids_b.get(b)

    def _weight(self, name: str, pair: Pair, place_a: int, place_b: int) -> WeightDifference | None:
        a, b = slots_of(pair.a)[place_a], slots_of(pair.b)[place_b]
        assert a is not None
        assert b is not None
        if place_a >= len(pair.a.inputs) or place_b >= len(pair.b.inputs):
            return None  # what a subgraph takes from outside is compared with the subgraph
        key = (name, a, b)
        if key not in self._weights:
            constants = constant_input(pair.a, place_a), constant_input(pair.b, place_b)
            difference = compare_constants(name, *constants)
            if difference is not None and pair.folded is not None:
                difference = with_clamped(difference, *constants)
            self._weights[key] = difference
        return self._weights[key]


def _input_names(node: ir.Node) -> list[str]:
    """What the schema calls a node's inputs; of a variadic one, with their numbers."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    count = len(node.inputs)
    try:
        formal = onnx.defs.get_schema(node.op_type, domain).inputs
    except onnx.defs.SchemaError:  # of onnxruntime's own operators
        return [f"input {i}" for i in range(count)]
    names = [value.name for value in formal]
    if names and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
        names[-1:] = [f"{names[-1]}[{i}]" for i in range(count - len(names) + 1)]
    return names


def _source(value: ir.Value | None) -> Source | None:
    if value is None:
        return None
    producer = value.producer()
    return Source(value.name or "", None if producer is None else producer.name, is_constant(value))
