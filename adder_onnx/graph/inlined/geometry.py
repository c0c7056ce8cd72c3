"""Kernel, strides, pads and sizes of a loop over taps, as expressions of the image's size.

The numbers of the rules are those of `layer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from adder_onnx.graph.inlined.expressions import Expression
from adder_onnx.graph.inlined.matching import DifferentError, require
from adder_onnx.graph.inlined.values import Values, is_standard, source
from adder_onnx.ops import ConvAttributes

__all__ = ["check_first_sum", "check_window", "read_kernel", "read_pads", "read_strides", "sizes"]

_ONE = Expression(1)


def read_kernel(
    values: Values, start: Sequence[Expression], t: Expression
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rule 3: (kH, kW) and (d_h, d_w), from where an iteration's taps start.

    Raises:
        DifferentError: they do not start there.
    """
    order = "taps are not taken in the kernel's order"
    require(len(start) == 3, order)
    dilations, kernel = [], []
    for offset in start[1:]:
        multiple = values.algebra.as_multiple(offset)
        if offset == Expression():
            dilations.append(1)
            kernel.append(1)
        else:
            require(multiple is not None and multiple[1][0] == "remainder", order)
            assert multiple is not None
            size = multiple[1][2]
            assert isinstance(size, int)
            dilations.append(multiple[0])
            kernel.append(size)
    algebra, (height, width) = values.algebra, kernel
    row = algebra.remainder(algebra.divide(t, Expression(width)), Expression(height))
    column = algebra.remainder(t, Expression(width))
    expected = [
        algebra.divide(t, Expression(height * width)),
        algebra.multiply(row, Expression(dilations[0])),
        algebra.multiply(column, Expression(dilations[1])),
    ]
    require(list(start) == expected and min(dilations) > 0, order)
    return (height, width), (dilations[0], dilations[1])


def read_strides(values: Values, tap_x: ir.Node) -> tuple[int, int]:
    """Rule 3: (s_h, s_w), from the axes and steps of the Slice."""
    has_axes = len(tap_x.inputs) > 3 and values.integers(tap_x.inputs[3]) == [2, 3, 4]
    require(has_axes, "it slices other axes")
    steps = values.integers(tap_x.inputs[4]) if len(tap_x.inputs) > 4 else [1, 1, 1]
    require(len(steps) == 3 and steps[0] == 1 and min(steps) > 0, "it slices by other steps")
    return steps[1], steps[2]


def read_pads(
    values: Values,
    size: Sequence[Expression],
    pads: Sequence[Expression] | None,
    kernel: tuple[int, int],
    attributes: ConvAttributes,
) -> tuple[tuple[int, int, int, int], str]:
    """Rule 4: pads and auto_pad.

    Args:
        values: of the graph.
        size: (H, W).
        pads: (top, left, bottom, right); None for none.
        kernel: (kH, kW).
        attributes: with strides and dilations.

    Raises:
        DifferentError: they are neither constant nor those of a mode.
    """
    if pads is None:
        return (0, 0, 0, 0), "NOTSET"
    if all(pad.is_constant for pad in pads):
        top, left, bottom, right = (pad.constant for pad in pads)
        require(min(top, left, bottom, right) >= 0, "it cuts the image")
        return (top, left, bottom, right), "NOTSET"
    smaller, larger = [], []
    for axis in range(2):
        halves = _same_pads(values, size[axis], kernel[axis], axis, attributes)
        smaller.append(halves[0])
        larger.append(halves[1])
    for mode, expected in (
        ("SAME_UPPER", [*smaller, *larger]),
        ("SAME_LOWER", [*larger, *smaller]),
    ):
        if list(pads) == expected:
            return (0, 0, 0, 0), mode
    raise DifferentError("it pads by an unknown number of zeros")


def _same_pads(
    values: Values, size: Expression, kernel: int, axis: int, attributes: ConvAttributes
) -> tuple[Expression, Expression]:
    """The smaller and the larger half of what `ConvAttributes.resolve_pads` pads an axis by."""
    algebra, stride = values.algebra, Expression(attributes.strides[axis])
    span = Expression((kernel - 1) * attributes.dilations[axis] + 1)
    steps = algebra.divide(algebra.subtract(size, _ONE), stride)
    needed = algebra.add(algebra.multiply(steps, stride), span)
    total = algebra.maximum(algebra.subtract(needed, size), Expression())
    smaller = algebra.divide(total, Expression(2))
    return smaller, algebra.subtract(total, smaller)


def sizes(
    values: Values,
    size: Sequence[Expression],
    pads: Sequence[Expression] | None,
    kernel: tuple[int, int],
    attributes: ConvAttributes,
) -> tuple[list[Expression], list[Expression]]:
    """(H', W') and (oH, oW), of the same arguments as `read_pads`."""
    algebra = values.algebra
    padded, out = [], []
    for axis in range(2):
        whole = size[axis]
        if pads is not None:
            whole = algebra.add(whole, algebra.add(pads[axis], pads[axis + 2]))
        span = (kernel[axis] - 1) * attributes.dilations[axis] + 1
        room = algebra.subtract(whole, Expression(span))
        last = algebra.divide(room, Expression(attributes.strides[axis]))
        padded.append(whole)
        out.append(algebra.add(last, _ONE))
    return padded, out


def check_window(
    values: Values,
    tap_x: ir.Node,
    start: Sequence[Expression],
    out: Sequence[Expression],
    strides: tuple[int, int],
) -> None:
    """Rule 3: where an iteration's taps end."""
    algebra = values.algebra
    extent = [_ONE]
    for count, stride in zip(out, strides, strict=True):
        last = algebra.multiply(algebra.subtract(count, _ONE), Expression(stride))
        extent.append(algebra.add(last, _ONE))
    expected = [algebra.add(*pair) for pair in zip(start, extent, strict=True)]
    require(values.expressions(tap_x.inputs[2]) == expected, "it slices windows of another size")


def check_first_sum(values: Values, value: ir.Value | None, shape: Sequence[Expression]) -> None:
    """Rule 7."""
    first = source(value)
    node = first.producer()
    if node is not None and is_standard(node, "Expand"):
        zero = values.array(node.inputs[0])
        require(zero.size == 1 and zero.ndim <= len(shape), "the first sum has another shape")
        dims = values.expressions(node.inputs[1])
    else:
        zero = values.array(first)
        dims = [*map(Expression, zero.shape)]
    require(zero.dtype == np.float64 and not zero.any(), "the first sum is not zero")
    require(dims == list(shape), "the first sum has another shape")
