"""Which nodes of two models are the same, and which of their values mean the same.

1. Nodes of one name and one operator are the same. AdderConv and QLinearAdderConv count as one
   operator. Names count that the file gives, not those that were made up for nodes without one.
2. So are nodes of one operator, not matched yet, whose first outputs have one name.
3. What is left over is matched where nothing but names differs, or little more:
   a. by computation: the operator, the attributes, the constants, and what the other inputs mean;
   b. by shapes: the same, but of the constants types and shapes only, if there is one such node in
      either model;
   c. by use: matched nodes, or the models' outputs, take their outputs at the same place, and
      operator, attributes and constants are equal.
   What is still left is not matched, but
4. nodes of one name whose operators differ, which are told as such.

Values mean the same where they are inputs of the graph of one name (or, left over, at one place),
or outputs of nodes that are matched, or of one name and given by nodes that are not. What an
integer node gives means what the last node gives that was fused into the float node. What Identity
and Cast give, and conversions to integers and back, means what they take, where their node is in
one model only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from adder_onnx.graph.adder_node import constant
from adder_onnx.graph.linear_quantization import is_private_clip
from adder_onnx.graph.partition import node_inputs
from adder_onnx.inspection.difference.attributes import essential, tensor_key
from adder_onnx.inspection.difference.epilogues import Folded, fold
from adder_onnx.inspection.difference.side import Side
from adder_onnx.ops import DOMAIN

__all__ = ["Matching", "Pair", "is_commutative", "match", "slots_of"]

_ADDERS = ((DOMAIN, "AdderConv"), (DOMAIN, "QLinearAdderConv"))

_COMMUTATIVE = ("Add", "Mul", "Max", "Min", "Sum", "And", "Or", "Xor", "Equal")

_TRANSPARENT = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")


@dataclass(frozen=True)
class Pair:
    """Two nodes that are the same.

    Attributes:
        a: the node of A.
        b: the node of B.
        how: ``name``, ``output`` (its name), ``computation``, ``shapes`` or ``use``.
        folded: what of one model's nodes became part of the other's integer node, or None.
    """

    a: ir.Node
    b: ir.Node
    how: str
    folded: Folded | None = None


@dataclass(frozen=True)
class Matching:
    """What `match` finds.

    Attributes:
        pairs: in the order of A.
        only_a: nodes of A that have no match, in order.
        only_b: nodes of B that have none.
        ids_a: what values of A mean: equal for those that mean the same.
        ids_b: the same for B.
        inputs: the inputs of the graphs that are matched.
        outputs: the outputs of the graphs that are matched.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[ir.Node, ...]
    only_b: tuple[ir.Node, ...]
    ids_a: dict[ir.Value, int]
    ids_b: dict[ir.Value, int]
    inputs: tuple[tuple[ir.Value, ir.Value], ...]
    outputs: tuple[tuple[ir.Value, ir.Value], ...]


def match(a: Side, b: Side) -> Matching:
    """Matches the nodes and values of two models by the rules above."""
    return _Matcher(a, b).match()


def slots_of(node: ir.Node) -> list[ir.Value | None]:
    """A node's inputs, with those behind them that its subgraphs take from outside."""
    own = set(node.inputs)
    return [*node.inputs, *(value for value in node_inputs(node) if value not in own)]


def is_commutative(node: ir.Node) -> bool:
    """Whether a node gives the same whatever the order of its inputs."""
    return node.op_type in _COMMUTATIVE and node.domain in ("", "ai.onnx")


class _Half:
    """One of the models while it is matched."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.opsets = side.graph.graph.opset_imports
        self.left = dict.fromkeys(side.nodes)
        self.ids: dict[ir.Value, int] = {}
        self.slots = {node: slots_of(node) for node in side.nodes}
        self.ready: deque[ir.Node] = deque()
        self.seen_through: deque[ir.Node] = deque()
        self._missing = {node: len(self._variables(node)) for node in side.nodes}
        self._keys: dict[ir.Node, tuple[Hashable, ...]] = {}
        self.ready.extend(node for node, missing in self._missing.items() if not missing)

    def _variables(self, node: ir.Node) -> set[ir.Value]:
        return {v for v in self.slots[node] if v is not None and constant(v) is None}

    def give(self, value: ir.Value, number: int) -> None:
        """Says what a value means, unless that is known."""
        if value in self.ids:
            return
        self.ids[value] = number
        for node in self.side.consumers.get(value, ()):
            self._missing[node] -= 1
            if not self._missing[node] and node in self.left:
                self.ready.append(node)

    def is_ready(self, node: ir.Node) -> bool:
        return not self._missing[node]

    def what(self, node: ir.Node) -> tuple[Hashable, ...]:
        """Operator, attributes and number of outputs."""
        if node not in self._keys:
            domain = "" if node.domain == "ai.onnx" else node.domain
            attributes = essential(node, self.opsets)
            self._keys[node] = (domain, node.op_type, attributes, len(node.outputs))
        return self._keys[node]

    def key(self, node: ir.Node, *, with_values: bool) -> Hashable:
        """What a node computes, by the values or only the shapes of its constants."""
        inputs = [self._slot(value, with_values=with_values) for value in self.slots[node]]
        if is_commutative(node):
            inputs.sort(key=repr)
        return (self.what(node), tuple(inputs))

    def constants(self, node: ir.Node) -> Hashable:
        """The constants of a node, each at its place."""
        return tuple(
            None if constant(v) is None else self._slot(v, with_values=True)
            for v in self.slots[node]
        )

    def _slot(self, value: ir.Value | None, *, with_values: bool) -> Hashable:
        if value is None:
            return None
        if constant(value) is None:
            return self.ids[value]
        assert value.const_value is not None
        if with_values:
            return tensor_key(value.const_value)
        return ("shape", value.const_value.dtype.name, tuple(value.const_value.shape))


class _Matcher:
    def __init__(self, a: Side, b: Side) -> None:
        self._a, self._b = _Half(a), _Half(b)
        self._pairs: dict[ir.Node, Pair] = {}
        self._number = 0
        self._computed: dict[Hashable, tuple[list[ir.Node], list[ir.Node], list[int]]] = {}
        self._shaped: dict[Hashable, tuple[list[ir.Node], list[ir.Node]]] = {}
        self._touched: dict[Hashable, None] = {}
        self._taken: deque[tuple[ir.Value | None, ir.Value | None]] = deque()

    def match(self) -> Matching:
        a, b = self._a, self._b
        inputs = _together(a.side.inputs, b.side.inputs)
        outputs = _together(a.side.outputs, b.side.outputs)
        for ours, theirs in inputs:
            number = self._new()
            a.give(ours, number)
            b.give(theirs, number)
        self._taken.extend(outputs)
        self._by_name()
        self._by_output()
        self._by_structure()
        self._values_by_name()
        self._by_name(any_operator=True)
        self._by_structure()
        order = (self._pairs[node] for node in a.side.nodes if node in self._pairs)
        return Matching(
            tuple(order), tuple(a.left), tuple(b.left), a.ids, b.ids, tuple(inputs), tuple(outputs)
        )

    def _new(self) -> int:
        self._number += 1
        return self._number

    def _join(self, a: ir.Node, b: ir.Node, how: str, numbers: list[int] | None = None) -> None:
        """Matches two nodes; ``numbers`` say what their outputs mean, where that is known."""
        del self._a.left[a], self._b.left[b]
        folded = fold(self._a.side, a, self._b.side, b)
        self._pairs[a] = Pair(a, b, how, folded)
        if folded is not None:
            number = self._new()
            self._a.give(folded.a, number)
            self._b.give(folded.b, number)
        else:
            for i, (ours, theirs) in enumerate(zip(a.outputs, b.outputs, strict=False)):
                number = self._new() if numbers is None else numbers[i]
                self._a.give(ours, number)
                self._b.give(theirs, number)
        self._taken.extend(zip(self._a.slots[a], self._b.slots[b], strict=False))

    def _by_name(self, *, any_operator: bool = False) -> None:
        for node in list(self._a.left):
            other = self._b.side.by_name.get(node.name or "")
            if other is None or other not in self._b.left or node.name not in self._a.side.named:
                continue
            if other.name in self._b.side.named and (any_operator or _kind(node) == _kind(other)):
                self._join(node, other, "name")

    def _by_output(self) -> None:
        others = {node.outputs[0].name: node for node in self._b.left if node.outputs}
        for node in [node for node in self._a.left if node.outputs]:
            other = others.get(node.outputs[0].name)
            if other is not None and _kind(node) == _kind(other):
                self._join(node, other, "output")

    def _values_by_name(self) -> None:
        for value in [v for node in self._a.left for v in node.outputs]:
            other = self._b.side.values.get(value.name or "")
            if other is not None and other.producer() in self._b.left:
                number = self._a.ids.get(value, self._new())
                if other not in self._b.ids:
                    self._a.give(value, number)
                    self._b.give(other, number)

    def _by_structure(self) -> None:
        while self._computations() or self._shapes() or self._uses() or self._see_through():
            pass

    def _computations(self) -> bool:
        """Rule 3a, for all nodes of which is known what they take."""
        found = False
        for place, half in enumerate((self._a, self._b)):
            while half.ready:
                node = half.ready.popleft()
                if node not in half.left:
                    continue
                key = half.key(node, with_values=True)
                bucket = self._computed.setdefault(key, ([], [], []))
                bucket[:2][place].append(node)
                if _is_transparent(node):
                    half.seen_through.append(node)
                shape = half.key(node, with_values=False)
                self._shaped.setdefault(shape, ([], []))[place].append(node)
                self._touched[shape] = None
                found |= self._join_equal(bucket)
        return found

    def _join_equal(self, bucket: tuple[list[ir.Node], list[ir.Node], list[int]]) -> bool:
        """Matches nodes that compute the same; one too many in a model means the same, too."""
        ours, theirs, numbers = bucket
        ours[:] = [node for node in ours if node in self._a.left]
        theirs[:] = [node for node in theirs if node in self._b.left]
        if ours and theirs and not numbers:
            numbers += [self._new() for _ in ours[0].outputs]
        found = False
        while ours and theirs:
            self._join(ours.pop(0), theirs.pop(0), "computation", numbers)
            found = True
        for half, nodes in ((self._a, ours), (self._b, theirs)):
            for node in nodes if numbers else ():
                for value, number in zip(node.outputs, numbers, strict=True):
                    half.give(value, number)
        return found

    def _shapes(self) -> bool:
        """Rule 3b."""
        found = False
        for key in self._touched:
            ours, theirs = self._shaped[key]
            ours[:] = [node for node in ours if node in self._a.left]
            theirs[:] = [node for node in theirs if node in self._b.left]
            if len(ours) == len(theirs) == 1:
                self._join(ours[0], theirs[0], "shapes")
                found = True
        self._touched.clear()
        return found

    def _uses(self) -> bool:
        """Rule 3c."""
        found = False
        while self._taken:
            ours, theirs = self._taken.popleft()
            a = None if ours is None else ours.producer()
            b = None if theirs is None else theirs.producer()
            if a is None or b is None or a not in self._a.left or b not in self._b.left:
                continue
            assert ours is not None
            assert theirs is not None
            if ours.index() != theirs.index() or self._a.what(a) != self._b.what(b):
                continue
            if self._a.constants(a) == self._b.constants(b):
                self._join(a, b, "use")
                found = True
        return found

    def _see_through(self) -> bool:
        """One node that means what it takes, and has no match."""
        for half in (self._a, self._b):
            while half.seen_through:
                node = half.seen_through.popleft()
                source, result = node.inputs[0], node.outputs[0]
                if node in half.left and source in half.ids and result not in half.ids:
                    assert source is not None
                    half.give(result, half.ids[source])
                    return True
        return False


def _together(a: Iterable[ir.Value], b: Iterable[ir.Value]) -> list[tuple[ir.Value, ir.Value]]:
    """Values of one name, and of what is left those at one place, if their types agree."""
    ours, theirs = {v.name: v for v in a}, {v.name: v for v in b}
    pairs = [(ours.pop(name), theirs.pop(name)) for name in [*ours] if name in theirs]
    if len(ours) == len(theirs):
        rest = zip(ours.values(), theirs.values(), strict=True)
        pairs += [(one, other) for one, other in rest if _may_agree(one, other)]
    return pairs


def _may_agree(a: ir.Value, b: ir.Value) -> bool:
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
    ranks = [None if v.shape is None else v.shape.rank() for v in (a, b)]
    types = a.dtype == b.dtype or (a.dtype in floats and b.dtype in floats)
    return types and (None in ranks or ranks[0] == ranks[1])


def _kind(node: ir.Node) -> tuple[str, str]:
    operator = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
    return _ADDERS[0] if operator in _ADDERS else operator


def _is_transparent(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Clip" and is_private_clip(node, node.outputs[0]):
        (use,) = node.outputs[0].uses()
        return use.node.op_type == "QuantizeLinear"
    return node.op_type in _TRANSPARENT and constant(node.inputs[0]) is None
