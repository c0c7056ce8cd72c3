"""Values inside of two models on the same inputs: how far each is from its like in the other.

1. Each value of A is compared with the one of B that means the same, see `matching`; without one,
   with that of the same name. The models' outputs are, too, by name and by place. What is inside of
   a fused epilogue in both models is never made, and left out.
2. Integers are compared as the reals that they mean, where the graph says what that is.
3. Both models run on a few inputs at a time, and what they give is added up and forgotten. Where
   all values of one run would take too much memory, they are taken in turn, in several runs.
4. A value's drop is counted from the values that it is computed from, the nearest that are
   compared, and of these from that with the least ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.errors import DataError, InputError
from adder_onnx.graph.adder_node import constant
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.partition import node_inputs
from adder_onnx.inspection.difference.candidates import Candidate, candidates_of, turns_of
from adder_onnx.inspection.difference.comparison import Comparison
from adder_onnx.inspection.difference.noise import Noise
from adder_onnx.inspection.difference.running import Feed, Runner
from adder_onnx.inspection.difference.side import Side, operator_of
from adder_onnx.memory import limit
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["Answers", "OutputDifference", "ValueDifference", "Values", "compare_values"]

_SHARE = 8
"""The part of the memory allowed that the values of one run may take."""


@dataclass(frozen=True)
class Answers:
    """What two models say that their inputs are.

    Attributes:
        a: name of the output of A that says it.
        b: name of that of B.
        of_a: gives the number of the class of each input from that output.
        of_b: the same for B.
    """

    a: str
    b: str
    of_a: Callable[[NDArray[Any]], NDArray[np.int64]]
    of_b: Callable[[NDArray[Any]], NDArray[np.int64]]


@dataclass(frozen=True)
class ValueDifference:
    """A value of A and its like in B.

    Attributes:
        a: name of the value in A.
        b: name of the value in B.
        node: name of A's node that gives it.
        op: that node's operator.
        noise: how far they are apart.
        drop: decibels that are lost in comparison with what it is computed from; None where that
            is identical, or nothing is known of it.
    """

    a: str
    b: str
    node: str
    op: str
    noise: Noise
    drop: float | None


@dataclass(frozen=True)
class OutputDifference:
    """An output of both models.

    Attributes:
        a: its name in A.
        b: its name in B.
        noise: how far they are apart.
        same_answers: share of the inputs that both say is of the same class; None where the output
            says no class.
    """

    a: str
    b: str
    noise: Noise
    same_answers: float | None


@dataclass(frozen=True)
class Values:
    """What `compare_values` finds.

    Attributes:
        values: in the order of A.
        outputs: in the order of A.
        skipped: names of values in A and B that could not be compared, and why.
        inputs: how many there were.
        device: where the models ran.
    """

    values: tuple[ValueDifference, ...]
    outputs: tuple[OutputDifference, ...]
    skipped: tuple[tuple[str, str, str], ...]
    inputs: int
    device: str

    @property
    def first_difference(self) -> ValueDifference | None:
        """The first value that is not identical."""
        return next((value for value in self.values if not value.noise.is_identical), None)

    def first_below(self, threshold: float) -> ValueDifference | None:
        """The first value whose ratio is below so many decibels, or that differs in infinities."""
        below = (v for v in self.values if v.noise.decibels < threshold or v.noise.not_finite)
        return next(below, None)

    @property
    def largest_drop(self) -> ValueDifference | None:
        """The value that loses most, if one loses anything."""
        known = [v for v in self.values if v.drop is not None and v.drop > 0]
        return max(known, key=lambda value: value.drop or 0.0, default=None)


def compare_values(
    comparison: Comparison,
    feeds: Callable[[], Iterable[Feed]],
    *,
    answers: Answers | None = None,
    device: str = "cpu",
    threads: int | None = None,
    arithmetic: str = "fast",
    progress: Callable[[int, int], None] = lambda done, turns: None,
) -> Values:
    """Runs both models on the same inputs, and compares their values.

    Args:
        comparison: of the models; its assumed sizes tell how much memory a run takes.
        feeds: gives the inputs by the names that A has for them; is called once in each turn.
        answers: what says which class an input is of, where both models do.
        device: that they run on, as for `InferenceSession`.
        threads: for the runs; None for all cores.
        arithmetic: of float sums, as for `InferenceSession`.
        progress: is called after each run with how many inputs were run so far, in all turns, and
            how many turns there are.

    Raises:
        InputError: the inputs fit one of the models only, or the models have no value in common.
        DataError: there are no inputs.
    """
    graphs = load_graph(comparison.a.proto), load_graph(comparison.b.proto)
    for graph in graphs:
        complete_types(graph)
    candidates = candidates_of(comparison, *map(_names, graphs))
    if not candidates:
        raise InputError("the models have no value in common that could be compared")
    agreement = None if answers is None else _Agreement(answers)
    turns = list(turns_of(candidates, limit() // _SHARE))
    done = 0
    for number, turn in enumerate(turns):
        wanted = [[c.names[side] for c in turn] for side in (0, 1)]
        if agreement is not None and number == 0:
            wanted = [[*names, name] for names, name in zip(wanted, agreement.names, strict=True)]
        inputs = 0
        runner = Runner(comparison, graphs, wanted, device, threads, arithmetic)
        for feed in feeds():
            ours, theirs = runner.run(feed)
            for candidate in turn:
                candidate.add(ours[candidate.names[0]], theirs[candidate.names[1]])
            if agreement is not None and number == 0:
                agreement.add(ours, theirs)
            inputs += _count(feed)
            done += _count(feed)
            progress(done, len(turns))
        runner.close()
    if not inputs:
        raise DataError("there are no images that values could be compared on")
    return _found(comparison.a, candidates, agreement, inputs, runner.device)


def _found(
    a: Side,
    candidates: Sequence[Candidate],
    agreement: _Agreement | None,
    inputs: int,
    device: str,
) -> Values:
    compared = [c for c in candidates if not c.problem and c.noise.elements]
    drops = _drops(a.nodes, {c.a: c.noise.decibels for c in compared})
    outputs = []
    for candidate in compared:
        if candidate.is_output:
            says = agreement is not None and agreement.names == candidate.names
            share = agreement.share if agreement is not None and says else None
            outputs.append(OutputDifference(*candidate.names, candidate.noise, share))
    return Values(
        tuple(_described(candidate, drops) for candidate in compared),
        tuple(outputs),
        tuple((*c.names, c.problem or "it is empty") for c in candidates if c not in compared),
        inputs,
        device,
    )


def _described(candidate: Candidate, drops: Mapping[ir.Value, float]) -> ValueDifference:
    node = candidate.a.producer()
    assert node is not None
    return ValueDifference(
        *candidate.names,
        node.name or "",
        operator_of(node),
        candidate.noise,
        drops.get(candidate.a),
    )


def _names(model: ir.Model) -> list[str]:
    return [value.name or "" for node in model.graph for value in node.outputs]


class _Agreement:
    """How often both models say the same class."""

    def __init__(self, answers: Answers) -> None:
        self.names = answers.a, answers.b
        self._answers = answers
        self._same = self._count = 0

    def add(self, ours: Feed, theirs: Feed) -> None:
        a = self._answers.of_a(ours[self.names[0]])
        b = self._answers.of_b(theirs[self.names[1]])
        self._same += int(np.count_nonzero(a == b))
        self._count += len(a)

    @property
    def share(self) -> float | None:
        return self._same / self._count if self._count else None


def _count(feed: Feed) -> int:
    array = next(iter(feed.values()))
    return len(array) if array.ndim else 1


def _drops(nodes: Iterable[ir.Node], ratios: Mapping[ir.Value, float]) -> dict[ir.Value, float]:
    """What each value loses by rule 4, where its ratio and that of what it is made of are known."""
    reached: dict[ir.Value, float] = {}
    drops = {}
    for node in nodes:
        sources = (reached.get(v, math.inf) for v in node_inputs(node) if constant(v) is None)
        least = min(sources, default=math.inf)
        for value in node.outputs:
            ratio = reached[value] = ratios.get(value, least)
            if math.isfinite(least) and math.isfinite(ratio):
                drops[value] = least - ratio
    return drops
