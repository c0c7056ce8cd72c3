"""Constant inputs of two nodes, as the reals that they mean.

An integer weight stands for ``(w - zero_point) * scale``: those of QLinearAdderConv, QLinearConv
and QLinearMatMul with the operator's own inputs, and what a DequantizeLinear makes of constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import constant
from adder_onnx.ops import DOMAIN

__all__ = [
    "Constant",
    "WeightDifference",
    "compare_constants",
    "constant_input",
    "is_constant",
    "with_clamped",
]

_QUANTIZED = {
    (DOMAIN, "QLinearAdderConv"): {1: (2, 3)},
    ("", "QLinearConv"): {3: (4, 5)},
    ("", "QLinearMatMul"): {3: (4, 5)},
}
"""Inputs that are integer weights, with those that are their scale and zero point."""

_PIECE = 1 << 20
"""Elements that are compared at a time, in float64."""


@dataclass(frozen=True)
class Constant:
    """A constant.

    Attributes:
        name: of its value.
        array: as it is stored.
        scale: what an integer is worth, or None for a constant that means itself.
        zero_point: the integer that means zero.
        axis: along which scale and zero point lie, where they are not one each.
    """

    name: str
    array: NDArray[np.generic]
    scale: NDArray[np.float64] | None = None
    zero_point: NDArray[np.float64] | None = None
    axis: int = 0

    @property
    def type(self) -> str:
        """Of what is stored: ``float32``, ``uint8``, …"""
        return "string" if self.array.dtype.kind in "OSU" else str(self.array.dtype)

    @property
    def is_number(self) -> bool:
        """Whether it is an array of numbers."""
        return self.array.dtype.kind not in "OSUc"

    def reals(self) -> Iterator[NDArray[np.float64]]:
        """The reals, flat, in pieces of a bounded size."""
        if self.scale is None or self.zero_point is None:
            flat = self.array.reshape(-1)
            for start in range(0, flat.size, _PIECE):
                yield np.asarray(flat[start : start + _PIECE], np.float64)
            return
        shape = [1] * self.array.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale, zero = self.scale.reshape(shape), self.zero_point.reshape(shape)
        flat = ((np.asarray(self.array, np.float64) - zero) * scale).reshape(-1)
        for start in range(0, flat.size, _PIECE):
            yield flat[start : start + _PIECE]


@dataclass(frozen=True)
class WeightDifference:
    """Constants that differ, in type, shape or values.

    Attributes:
        input: what the operator calls the input.
        a: name of the constant in A; empty where there is none.
        b: the same in B.
        type_a: as it is stored; empty where there is none.
        type_b: the same in B.
        shape_a: its shape; None where there is none.
        shape_b: the same in B.
        largest: the largest absolute difference of the reals that they mean; None where these
            cannot be compared, or are not finite.
        relative: that by the largest absolute value in A; None without it, or where that is zero.
        clamped: of a float weight of an adder node and an integer one, the share of weights that
            lie beyond what the integers reach; what that changes is in the bias. Else None.
        largest_inside: the largest absolute difference of the others; None without them.
    """

    input: str
    a: str
    b: str
    type_a: str
    type_b: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    largest: float | None = None
    relative: float | None = None
    clamped: float | None = None
    largest_inside: float | None = None


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or what a DequantizeLinear makes of constants."""
    return constant(value) is not None or _dequantized(value) is not None


def constant_input(node: ir.Node, number: int) -> Constant | None:
    """A node's constant input; None where it is not there, or no constant."""
    value = node.inputs[number] if number < len(node.inputs) else None
    array = constant(value)
    if value is None or array is None:
        return _dequantized(value)
    domain = "" if node.domain == "ai.onnx" else node.domain
    places = _QUANTIZED.get((domain, node.op_type), {}).get(number)
    name = value.name or ""
    if places is None or len(node.inputs) <= max(places):
        return Constant(name, array)
    scale, zero_point = (constant(node.inputs[place]) for place in places)
    # Those of a matrix lie along its columns, those of filters along the first axis.
    axis = array.ndim - 1 if node.op_type == "QLinearMatMul" else 0
    return _with_scale(name, array, scale, zero_point, axis)


def _dequantized(value: ir.Value | None) -> Constant | None:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    if producer.domain not in ("", "ai.onnx") or producer.attributes.get_int("block_size", 0) != 0:
        return None
    arrays = [constant(given) for given in producer.inputs]
    if arrays[0] is None or arrays[1] is None or (len(arrays) > 2 and arrays[2] is None):
        return None
    assert value is not None
    zero_point = arrays[2] if len(arrays) > 2 else np.zeros_like(arrays[1])
    axis = producer.attributes.get_int("axis", 1)
    return _with_scale(value.name or "", arrays[0], arrays[1], zero_point, axis)


def _with_scale(
    name: str,
    array: NDArray[np.generic],
    scale: NDArray[np.generic] | None,
    zero_point: NDArray[np.generic] | None,
    axis: int,
) -> Constant | None:
    """The constant with these parameters; without them, where they do not fit it."""
    if scale is None or zero_point is None:
        return Constant(name, array)
    sizes = {scale.size, zero_point.size}
    fits = -array.ndim <= axis < array.ndim and sizes == {array.shape[axis]}
    if sizes != {1} and not fits:
        return Constant(name, array)
    factors, zeros = (np.asarray(part, np.float64).reshape(-1) for part in (scale, zero_point))
    return Constant(name, array, factors, zeros, axis)


def compare_constants(
    input: str, a: Constant | None, b: Constant | None
) -> WeightDifference | None:
    """How two constants differ; None where they do not."""
    if a is None and b is None:
        return None
    described = (
        input,
        "" if a is None else a.name,
        "" if b is None else b.name,
        "" if a is None else a.type,
        "" if b is None else b.type,
        None if a is None else a.array.shape,
        None if b is None else b.array.shape,
    )
    if a is None or b is None:
        return WeightDifference(*described)
    is_same_kind = a.type == b.type and (a.scale is None) == (b.scale is None)
    if a.array.shape != b.array.shape or not (a.is_number and b.is_number):
        same = a.array.shape == b.array.shape and is_same_kind and bool((a.array == b.array).all())
        return None if same else WeightDifference(*described)
    if is_same_kind and a.scale is None and np.array_equal(_bits(a.array), _bits(b.array)):
        return None
    largest, scale = _largest(a, b)
    if largest == 0 and is_same_kind:
        return None
    if not np.isfinite([largest, scale]).all():
        return WeightDifference(*described)
    return WeightDifference(*described, largest, largest / scale if scale else None)


def with_clamped(
    difference: WeightDifference, a: Constant | None, b: Constant | None
) -> WeightDifference:
    """The difference with what there is to say of weights that the integers do not reach.

    These lie beyond the lowest or the highest integer that is there by more than half a step.
    """
    if a is None or b is None or difference.largest is None:
        return difference
    if (a.scale is None) == (b.scale is None):
        return difference
    plain, integer = (a, b) if a.scale is None else (b, a)
    assert integer.scale is not None
    low = min(float(piece.min()) for piece in integer.reals())
    high = max(float(piece.max()) for piece in integer.reals())
    half = float(integer.scale.max()) / 2
    beyond, inside, largest = 0, 0, 0.0
    for ours, theirs in zip(plain.reals(), integer.reals(), strict=True):
        reached = (ours >= low - half) & (ours <= high + half)
        beyond += int(np.count_nonzero(~reached))
        if reached.any():
            inside += int(np.count_nonzero(reached))
            largest = max(largest, float(np.abs(ours - theirs)[reached].max()))
    return replace(
        difference,
        clamped=beyond / max(beyond + inside, 1),
        largest_inside=largest if inside else None,
    )


def _bits(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same bytes as integers: a NaN is not equal to itself."""
    sizes = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
    kind = sizes.get(array.dtype.itemsize)
    return array if kind is None else np.ascontiguousarray(array).view(kind)


def _largest(a: Constant, b: Constant) -> tuple[float, float]:
    """The largest absolute difference, and the largest absolute value in A."""
    largest = scale = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for ours, theirs in zip(a.reals(), b.reals(), strict=True):
            largest = float(np.maximum(largest, np.abs(ours - theirs).max()))
            scale = float(np.maximum(scale, np.abs(ours).max()))
    return largest, scale
