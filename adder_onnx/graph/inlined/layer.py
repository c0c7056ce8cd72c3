"""Reading an AdderConv from the loop that its inlined function body has become.

A loop is read as ``Y = AdderConv(X, W)`` only where all of this holds, for every size that X can
have; optimizers fold, rename, reorder and merge, so constants may be computed and sizes be numbers:

1. It is a Loop with one carried value, double, and no other output; it always runs its whole trip
   count: its condition is absent or true, and its body passes the condition on, or true.
2. The body subtracts from the carried value the absolute value of the difference, either way
   round, of a Slice and a Gather, which take values from outside of the body. The Gather is by the
   number of the iteration, on axis 3.
3. The Slice takes axes 2, 3, 4 by steps (1, s_h, s_w), from start to start + extent;
   start = (t / (kH*kW), (t / kW mod kH) * d_h, (t mod kW) * d_w) for the iteration t, and
   extent = (1, (oH - 1) * s_h + 1, (oW - 1) * s_w + 1).
4. What it is taken from is X, padded in height and width by zeros, as (N, g, C/g, H', W'). The
   number of zeros is constant and not negative, or that of SAME_UPPER or SAME_LOWER. X is of Y's
   type, or of a narrower one and will be cast to it; no cast on the way loses anything.
5. The Gather is from (1, g, M/g, C/g*kH*kW, 1, 1), which is W, likewise of Y's type and of a known
   shape (M, C/g, kH, kW), or a constant all of whose values Y's type can represent.
6. The trip count is C/g*kH*kW.
7. The carried value is at first zeros of the shape (N, g, M/g, oH, oW).
8. The loop's result is used only as (N, M, oH, oW), and that is used only as one type, float16 or
   float32, which is Y; neither is an output of the graph. Where the latter is used as it is, it is
   Y, and double. Nothing of this is used inside control flow.

Here H' and W' are the padded height and width, oH = (H' - (kH - 1) * d_h - 1) / s_h + 1, and oW
likewise. All of it is compared as expressions of X's dimensions (`Expression`), not by example.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.graph.inlined.expressions import Expression
from adder_onnx.graph.inlined.geometry import (
    check_first_sum,
    check_window,
    read_kernel,
    read_pads,
    read_strides,
    sizes,
)
from adder_onnx.graph.inlined.loop import body_of, check_control, outputs_of, taps_of
from adder_onnx.graph.inlined.matching import check_reshape, require
from adder_onnx.graph.inlined.operands import read_image, read_weight
from adder_onnx.graph.inlined.values import Values, source
from adder_onnx.ops import ConvAttributes

__all__ = ["Layer", "read_layer"]


@dataclass(frozen=True)
class Layer:
    """An AdderConv that was read from a loop.

    Attributes:
        type: of the output.
        x: the input, (N, C, H, W), of that type or a narrower one.
        w: the weight, (M, C/group, kH, kW): a value, likewise, or an array of the output's type.
        attributes: strides, pads, dilations, group, auto_pad.
        kernel_shape: (kH, kW).
        outputs: the values that are Y.
        last: the node after which Y can be computed.
        shape: of Y.
    """

    type: ir.DataType
    x: ir.Value
    w: ir.Value | NDArray[Any]
    attributes: ConvAttributes
    kernel_shape: tuple[int, int]
    outputs: tuple[ir.Value, ...]
    last: ir.Node
    shape: tuple[Expression, ...]


def read_layer(values: Values, loop: ir.Node) -> Layer:
    """The AdderConv that a loop computes.

    Args:
        values: of the graph.
        loop: a node of the main graph for which `loop.sums_distances` is true.

    Raises:
        DifferentError: it computes something else, or in a way that is not understood.
        UnknownValueError: the same, seen while computing a value.
    """
    check_control(values, loop)
    tap_x, tap_w = taps_of(loop)
    last, outputs, type_ = outputs_of(loop)

    t = values.define_counter(body_of(loop).inputs[0])
    start = values.expressions(tap_x.inputs[1])
    kernel, dilations = read_kernel(values, start, t)
    strides = read_strides(values, tap_x)

    weight = read_weight(values, source(tap_w.inputs[0]), type_)
    area = kernel[0] * kernel[1]
    group, group_channels = weight.group, weight.taps // area
    require(group_channels * area == weight.taps, "the kernel does not divide the taps")
    fits = weight.kernel in (None, (group_channels, *kernel))
    require(fits, "the weight has another kernel")
    filters = group * weight.group_filters
    w = weight.w
    if not isinstance(w, ir.Value):
        w = w.reshape(filters, group_channels, *kernel)
    runs_all = values.integers(loop.inputs[0]) == [weight.taps]
    require(runs_all, "the trip count is not the number of taps")

    image = read_image(values, source(tap_x.inputs[0]), type_)
    batch, channels, *size = image.shape
    attributes = ConvAttributes(strides, dilations=dilations, group=group)
    pads, auto_pad = read_pads(values, size, image.pads, kernel, attributes)
    padded, out = sizes(values, size, image.pads, kernel, attributes)

    grouped = (batch, Expression(group), Expression(group_channels), *padded)
    is_inferred = check_reshape(values, image.reshape, grouped)
    # Where a dimension is inferred, other channels would make another batch, not an error.
    fits = not is_inferred or channels == Expression(group * group_channels)
    require(fits, "the number of channels is unknown")
    check_window(values, tap_x, start, out, strides)
    sum_shape = (batch, Expression(group), Expression(weight.group_filters), *out)
    check_first_sum(values, loop.inputs[2], sum_shape)
    shape = (batch, Expression(filters), *out)
    check_reshape(values, last, shape)
    return Layer(
        type_,
        image.x,
        w,
        replace(attributes, pads=pads, auto_pad=auto_pad),
        kernel,
        outputs,
        last,
        shape,
    )
