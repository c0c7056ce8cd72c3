"""The image and the weight of a loop over taps, as they were before the body prepared them.

The numbers of the rules are those of `layer`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.inlined.expressions import Expression
from adder_onnx.graph.inlined.matching import check_reshape, require
from adder_onnx.graph.inlined.values import Values, is_standard, source

__all__ = ["WIDTHS", "Image", "Weight", "read_image", "read_weight"]

WIDTHS = {ir.DataType.FLOAT16: 0, ir.DataType.FLOAT: 1, ir.DataType.DOUBLE: 2}
"""AdderConv's types; one can be cast to another with a larger number without loss."""


@dataclass(frozen=True)
class Image:
    """What taps are sliced from.

    Attributes:
        x: (N, C, H, W), of the type asked for or a narrower one.
        shape: of x.
        pads: (top, left, bottom, right); None where there is no Pad.
        reshape: the node that makes groups of channels.
    """

    x: ir.Value
    shape: tuple[Expression, ...]
    pads: tuple[Expression, ...] | None
    reshape: ir.Node


@dataclass(frozen=True)
class Weight:
    """What taps are gathered from.

    Attributes:
        w: (M, C/group, kH, kW), of the type asked for or a narrower one; or the elements of a
            constant, of the type asked for, in that order.
        kernel: (C/group, kH, kW), where it is known from w.
        group: number of groups.
        group_filters: M / group.
        taps: C/group * kH * kW.
    """

    w: ir.Value | NDArray[Any]
    kernel: tuple[int, ...] | None
    group: int
    group_filters: int
    taps: int


def read_image(values: Values, grouped: ir.Value, type_: ir.DataType) -> Image:
    """Rule 4, but for the shapes.

    Raises:
        DifferentError: a rule is broken.
        UnknownValueError: a value is not understood.
    """
    reshape = grouped.producer()
    require(is_standard(reshape, "Reshape"), "the image is not grouped")
    assert reshape is not None
    before = source(reshape.inputs[0])
    pad = before.producer()
    is_padded = is_standard(pad, "Pad")
    if pad is not None and is_padded:
        before = source(pad.inputs[0])
    x = _before_casts(before, type_)
    require(x is not None, "the image's type is not that of the result")
    assert x is not None
    if pad is None or not is_padded:
        shape, pads = values.shape(x), None
    else:
        shape = values.shape_of_rank(x, 4)  # a Pad of height and width has eight pads
        pads = _pads(values, pad)
    require(len(shape) == 4, "the image does not have four dimensions")
    return Image(x, shape, pads, reshape)


def read_weight(values: Values, grouped: ir.Value, type_: ir.DataType) -> Weight:
    """Rule 5, but for the kernel.

    Raises:
        DifferentError: a rule is broken.
        UnknownValueError: a value is not understood.
    """
    reshape = grouped.producer()
    if reshape is not None and is_standard(reshape, "Reshape"):
        w = _before_casts(source(reshape.inputs[0]), type_)
        if w is not None:
            return _reshaped_weight(values, w, reshape)
    array = values.array(grouped)
    shape = array.shape
    is_grouped = len(shape) == 6 and (shape[0], *shape[4:]) == (1, 1, 1) and array.size > 0
    require(is_grouped and array.dtype == np.float64, "the weight is not grouped")
    _, group, group_filters, taps, *_ = shape
    with np.errstate(all="ignore"):
        narrow = array.astype(type_.numpy())
    same = np.array_equal(narrow.astype(np.float64), array, equal_nan=True)
    require(same, f"the weight cannot be represented in {type_.name.lower()}")
    return Weight(narrow, None, group, group_filters, taps)


def _reshaped_weight(values: Values, w: ir.Value, reshape: ir.Node) -> Weight:
    dims = () if w.shape is None else tuple(w.shape)
    sizes = tuple(dim for dim in dims if isinstance(dim, int) and dim > 0)
    require(len(dims) == len(sizes) == 4, "the weight's shape is unknown")
    target = values.integers(reshape.inputs[1])
    is_grouped = len(target) == 6 and target[1] * target[2] == sizes[0] and target[1] > 0
    require(is_grouped, "the weight is not grouped")
    _, group, group_filters, *_ = target
    taps = math.prod(sizes[1:])
    check_reshape(values, reshape, [*map(Expression, (1, group, group_filters, taps, 1, 1))])
    return Weight(w, sizes[1:], group, group_filters, taps)


def _pads(values: Values, node: ir.Node) -> tuple[Expression, ...]:
    mode = node.attributes.get_string("mode", "constant")
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    is_zero = mode == "constant" and (fill is None or not values.array(fill).any())
    require(is_zero, "it pads by something else than zeros")
    require(len(node.inputs) < 4 or node.inputs[3] is None, "it pads other axes")
    pads = values.expressions(node.inputs[1])
    others = [*pads[:2], *pads[4:6]]
    require(len(pads) == 8 and others == [Expression()] * 4, "it pads other axes")
    return (*pads[2:4], *pads[6:])


def _before_casts(value: ir.Value, type_: ir.DataType) -> ir.Value | None:
    """The value of a type, or of a narrower one, that was cast to what a value is.

    All types on the way are wider than its own, so that none of the casts loses anything.
    """
    while _width(value) > WIDTHS[type_]:
        node = value.producer()
        if node is None or not is_standard(node, "Cast"):
            return None
        value = source(node.inputs[0])
    return value if _width(value) >= 0 else None


def _width(value: ir.Value) -> int:
    return -1 if value.dtype is None else WIDTHS.get(value.dtype, -1)
