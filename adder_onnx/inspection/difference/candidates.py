"""Which values of two models are compared, and in which turn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.inspection.difference.comparison import Comparison
from adder_onnx.inspection.difference.integers import Meaning, meaning_of
from adder_onnx.inspection.difference.noise import Noise

__all__ = ["Candidate", "candidates_of", "turns_of"]

_UNKNOWN_BYTES = 1 << 22
"""Taken for a value whose size is not known."""


class Candidate:
    """Two values that are to be compared.

    Args:
        a: the value of A.
        b: that of B.
        is_output: whether both are outputs of their models.
    """

    def __init__(self, a: ir.Value, b: ir.Value, *, is_output: bool) -> None:
        self.a, self.b, self.is_output = a, b, is_output
        self.names: tuple[str, str] = a.name or "", b.name or ""
        self.noise = Noise()
        self.problem = ""
        self._meanings: list[Meaning | None] = [None, None]
        if _is_integer(a) or _is_integer(b):
            self._meanings = [meaning_of(v) if _is_integer(v) else None for v in (a, b)]
            means_real = [not _is_integer(v) for v in (a, b)]
            if any(means_real) != any(m is not None for m in self._meanings):
                self.problem = "nothing says what the integers of one of them mean"

    @property
    def bytes(self) -> int:
        """What both take in memory, as far as is known."""
        return sum(_bytes(value) for value in (self.a, self.b))

    def add(self, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        if not self.problem and _squeezed(ours) != _squeezed(theirs):
            self.problem = f"their shapes are {list(ours.shape)} and {list(theirs.shape)}"
        if self.problem:
            return
        arrays = (ours, theirs)
        reals = [
            array if meaning is None else meaning.reals(array)
            for array, meaning in zip(arrays, self._meanings, strict=True)
        ]
        self.noise.add(*reals)


def candidates_of(
    comparison: Comparison, names_a: Iterable[str], names_b: Iterable[str]
) -> list[Candidate]:
    """The values that rule 1 tells, in the order of A; those of the runs' graphs only."""
    a, b, matching = comparison.a, comparison.b, comparison.matching
    there = frozenset(names_a), frozenset(names_b)
    theirs: dict[int, list[ir.Value]] = {}
    computed = [value for node in b.nodes for value in node.outputs]
    for value in computed:
        if value in matching.ids_b:
            theirs.setdefault(matching.ids_b[value], []).append(value)
    outputs = dict(matching.outputs)
    found = []
    for value in (value for node in a.nodes for value in node.outputs):
        other = outputs.get(value)
        if other is None:
            like = theirs.get(matching.ids_a.get(value, 0), [])
            own_name = b.values.get(value.name or "")
            like.sort(key=lambda v: (v in b.hidden, v.name != value.name))
            other = next(iter(like), own_name)
        if other is None or other.producer() is None or (value in a.hidden and other in b.hidden):
            continue
        if not (_is_number(value) and _is_number(other)):
            continue
        if value.name in there[0] and other.name in there[1]:
            found.append(Candidate(value, other, is_output=value in outputs))
    return found


def _is_number(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype != ir.DataType.STRING and _is_tensor(value)


def _is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType)


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()


def _bytes(value: ir.Value) -> int:
    dims = None if value.shape is None else list(value.shape)
    if dims is None or value.dtype is None or not all(isinstance(dim, int) for dim in dims):
        return _UNKNOWN_BYTES
    sizes = (dim for dim in dims if isinstance(dim, int))
    return math.ceil(math.prod(sizes) * value.dtype.itemsize)


def _squeezed(array: NDArray[Any]) -> list[int]:
    return [size for size in array.shape if size != 1]


def turns_of(candidates: Sequence[Candidate], most: int) -> Iterator[list[Candidate]]:
    """The candidates in groups whose values together take no more than so many bytes."""
    turn: list[Candidate] = []
    size = 0
    for candidate in candidates:
        if turn and size + candidate.bytes > most:
            yield turn
            turn, size = [], 0
        turn.append(candidate)
        size += candidate.bytes
    yield turn
