"""The operators as ONNX functions in standard operators, which make a file portable.

Any onnxruntime can execute a model that carries these bodies, slowly but right. `AdderConv` loops
over single taps (one channel, one kernel position) with a double accumulator, so that its memory
is O(N * M * oH * oW) and float16, float32 and float64 inputs all work. The attribute defaults are
those of the schema. `auto_pad` is compared by TfIdfVectorizer, because Equal takes strings only
from opset 19 on. Where another tool has written a body out, `adder_onnx.graph.inlined` reads it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator

import onnx
import onnx.parser

from adder_onnx.ops.domain import DOMAIN, VERSION

__all__ = ["MIN_OPSET", "function_bodies", "has_levels", "write_out_levels"]

MIN_OPSET = 15
"""The lowest version of the standard operator set that the bodies can be written in."""

_ADDER_CONV = """
<domain: "DOMAIN", opset_import: ["" : OPSET]>
AdderConv
<kernel_shape, auto_pad: string = "NOTSET", dilations: ints = [1, 1], group: int = 1,
 pads: ints = [0, 0, 0, 0], strides: ints = [1, 1]>
(X, W) => (Y)
{
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    four = Constant <value_ints: ints = [4]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    stride = Constant <value_ints: ints = @strides> ()
    dilation = Constant <value_ints: ints = @dilations> ()
    given_pads = Constant <value_ints: ints = @pads> ()
    group_scalar = Constant <value_int: int = @group> ()
    group = Reshape (group_scalar, one)
    kernel = Shape <start: int = 2, end: int = 4> (W)
    size = Shape <start: int = 2, end: int = 4> (X)
    batch = Shape <start: int = 0, end: int = 1> (X)
    group_channels = Shape <start: int = 1, end: int = 2> (W)
    filters = Shape <start: int = 0, end: int = 1> (W)
    group_filters = Div (filters, group)
    kernel_less_1 = Sub (kernel, one)
    reach = Mul (kernel_less_1, dilation)
    span = Add (reach, one)

    mode = Constant <value_string: string = @auto_pad> ()
    modes = Reshape (mode, one)
    one_hot = TfIdfVectorizer
        <max_gram_length: int = 1, max_skip_count: int = 0, min_gram_length: int = 1,
         mode: string = "TF", ngram_counts: ints = [0], ngram_indexes: ints = [0, 1, 2],
         pool_strings: strings = ["SAME_UPPER", "SAME_LOWER", "VALID"]> (modes)
    is_mode = Cast <to: int = 9> (one_hot)
    three = Constant <value_ints: ints = [3]> ()
    is_upper = Slice (is_mode, zero, one, zero)
    is_lower = Slice (is_mode, one, two, zero)
    is_valid = Slice (is_mode, two, three, zero)
    is_same = Or (is_upper, is_lower)
    size_less_1 = Sub (size, one)
    same_steps = Div (size_less_1, stride)
    same_start = Mul (same_steps, stride)
    same_need = Add (same_start, span)
    same_lack = Sub (same_need, size)
    same_total = Max (same_lack, zero)
    same_smaller = Div (same_total, two)
    same_larger = Sub (same_total, same_smaller)
    same_begin = Where (is_upper, same_smaller, same_larger)
    same_end = Sub (same_total, same_begin)
    given_begin = Slice (given_pads, zero, two, zero)
    given_end = Slice (given_pads, two, four, zero)
    fixed_begin = Where (is_valid, zero, given_begin)
    fixed_end = Where (is_valid, zero, given_end)
    begin = Where (is_same, same_begin, fixed_begin)
    end = Where (is_same, same_end, fixed_end)

    pads = Concat <axis: int = 0> (zero, zero, begin, zero, zero, end)
    double_x = Cast <to: int = 11> (X)
    double_w = Cast <to: int = 11> (W)
    padded = Pad (double_x, pads)
    padded_size = Shape <start: int = 2, end: int = 4> (padded)
    room = Sub (padded_size, span)
    last = Div (room, stride)
    out_size = Add (last, one)
    steps = Concat <axis: int = 0> (one, stride)
    window_end = Mul (last, stride)
    window = Add (window_end, one)
    extent = Concat <axis: int = 0> (one, window)
    x_shape = Concat <axis: int = 0> (batch, group, group_channels, padded_size)
    grouped_x = Reshape <allowzero: int = 1> (padded, x_shape)
    w_shape = Concat <axis: int = 0> (one, group, group_filters, minus_one, one, one)
    grouped_w = Reshape (double_w, w_shape)
    sum_shape = Concat <axis: int = 0> (batch, group, group_filters, out_size)
    double_zero = Constant <value: tensor = double {0.0}> ()
    first_sum = Expand (double_zero, sum_shape)
    tap_shape = Concat <axis: int = 0> (group_channels, kernel)
    taps = ReduceProd <keepdims: int = 0> (tap_shape)
    axes = Constant <value_ints: ints = [2, 3, 4]> ()
    kernel_height = Slice (kernel, zero, one, zero)
    kernel_width = Slice (kernel, one, two, zero)
    kernel_area = Mul (kernel_height, kernel_width)
    go = Constant <value: tensor = bool {1}> ()
    total = Loop (taps, go, first_sum) <body: graph = one_tap
        (int64 t, bool go_in, double[n, g, f, h, w] sum_in)
        => (bool go_out, double[n, g, f, h, w] sum_out)
        {
            channel = Div (t, kernel_area)
            row_number = Div (t, kernel_width)
            row = Mod (row_number, kernel_height)
            column = Mod (t, kernel_width)
            position = Concat <axis: int = 0> (row, column)
            offset = Mul (position, dilation)
            tap_start = Concat <axis: int = 0> (channel, offset)
            tap_end = Add (tap_start, extent)
            tap_x = Slice (grouped_x, tap_start, tap_end, axes, steps)
            tap_w = Gather <axis: int = 3> (grouped_w, t)
            difference = Sub (tap_x, tap_w)
            distance = Abs (difference)
            sum_out = Sub (sum_in, distance)
            go_out = Identity (go_in)
        }>
    y_shape = Concat <axis: int = 0> (batch, filters, out_size)
    double_y = Reshape <allowzero: int = 1> (total, y_shape)
    Y = CastLike (double_y, X)
}
"""

# Arithmetic is float32, step by step, each rounded; onnxruntime does not contract it. The sum is
# that of AdderConv, whose body adds up in double: exact for these integers. Both operands are less
# the zero point, so that AdderConv's padding with zeros is padding with the zero point.
_QLINEAR_ADDER_CONV = """
<domain: "DOMAIN", opset_import: ["" : OPSET, "DOMAIN" : VERSION]>
QLinearAdderConv
<kernel_shape, auto_pad: string = "NOTSET", bits: int = 8, clip_min: float = 0.0,
 dilations: ints = [1, 1], group: int = 1, LEVELS
 pads: ints = [0, 0, 0, 0], strides: ints = [1, 1]>
(X, W, x_scale, x_zero_point, scale, bias, Z, z_scale, z_zero_point, y_scale, y_zero_point) => (Y)
{
    float_x = Cast <to: int = 1> (X)
    float_w = Cast <to: int = 1> (W)
    float_x_zero = Cast <to: int = 1> (x_zero_point)
    shifted_x = Sub (float_x, float_x_zero)
    shifted_w = Sub (float_w, float_x_zero)
    minus_sum = DOMAIN.AdderConv
        <auto_pad: string = @auto_pad, dilations: ints = @dilations, group: int = @group,
         kernel_shape: ints = @kernel_shape, pads: ints = @pads, strides: ints = @strides>
        (shifted_x, shifted_w)
    axes = Constant <value_ints: ints = [1, 2]> ()
    factor = Mul (x_scale, scale)
    factor_of_filter = Unsqueeze (factor, axes)
    bias_of_filter = Unsqueeze (bias, axes)
    scaled = Mul (minus_sum, factor_of_filter)
    biased = Add (scaled, bias_of_filter)
    float_z = Cast <to: int = 1> (Z)
    float_z_zero = Cast <to: int = 1> (z_zero_point)
    shifted_z = Sub (float_z, float_z_zero)
    residual = Mul (shifted_z, z_scale)
    sum = Add (biased, residual)
    lowest = Constant <value_float: float = @clip_min> ()
    activated = Max (sum, lowest)
    quotient = Div (activated, y_scale)
    TAIL
}
"""

_ALL_INTEGERS = """
    rounded = Round (quotient)
    float_y_zero = Cast <to: int = 1> (y_zero_point)
    moved = Add (rounded, float_y_zero)
    int_bits = Constant <value_int: int = @bits> ()
    float_bits = Cast <to: int = 1> (int_bits)
    two = Constant <value_float: float = 2.0> ()
    one = Constant <value_float: float = 1.0> ()
    none = Constant <value_float: float = 0.0> ()
    levels = Pow (two, float_bits)
    highest = Sub (levels, one)
    above = Max (moved, none)
    between = Min (above, highest)
    Y = Cast <to: int = 2> (between)
"""

# Whether q is above a border between two levels, and to what it is rounded, depends on the place
# of q + y_zero_point among all multiples of 1/2 alone: on one, or between which two. There are
# 1,021 such places from 0 to 255, those on a multiple being even; the place is
# ceil(2 q) + floor(2 q) + 4 y_zero_point. A table has the output of each. What is no number, of
# which no comparison holds, has the first place.
_FEW_LEVELS = """
    float_y_zero = Cast <to: int = 1> (y_zero_point)
    int_bits = Constant <value_int: int = @bits> ()
    float_bits = Cast <to: int = 1> (int_bits)
    two = Constant <value_float: float = 2.0> ()
    one = Constant <value_float: float = 1.0> ()
    none = Constant <value_float: float = 0.0> ()
    powers = Pow (two, float_bits)
    highest = Sub (powers, one)
    four = Constant <value_float: float = 4.0> ()
    last_place = Constant <value_float: float = 1020.0> ()
    doubled = Mul (quotient, two)
    ceiling = Ceil (doubled)
    floor = Floor (doubled)
    quarters = Add (ceiling, floor)
    zero_quarters = Mul (float_y_zero, four)
    moved = Add (quarters, zero_quarters)
    is_above = Greater (moved, none)
    above = Where (is_above, moved, none)
    between = Min (above, last_place)
    place = Cast <to: int = 6> (between)

    first_axis = Constant <value_ints: ints = [0]> ()
    second_axis = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    behind_all = Constant <value_ints: ints = [100]> ()
    places_end = Constant <value_float: float = 1021.0> ()
    quarter = Constant <value_float: float = 0.25> ()
    places = Range (none, places_end, one)
    place_integers = Mul (places, quarter)
    place_quotients = Sub (place_integers, float_y_zero)
    rounded = Round (place_quotients)
    whole = Add (rounded, float_y_zero)
    whole_above = Max (whole, none)
    all_integers = Min (whole_above, highest)

    int_levels = Constant <value_ints: ints = @levels> ()
    number_of_levels = Shape (int_levels)
    has_levels = Greater (number_of_levels, first_axis)
    given_levels = Cast <to: int = 1> (int_levels)
    out_of_reach = Constant <value_floats: floats = [1000.0, 1000.0]> ()
    levels = Concat <axis: int = 0> (given_levels, out_of_reach)
    lower = Slice (levels, first_axis, minus_one, first_axis)
    upper = Slice (levels, second_axis, behind_all, first_axis)
    steps = Sub (upper, lower)
    twice_borders = Add (lower, upper)
    border_places = Mul (twice_borders, two)
    place_rows = Unsqueeze (places, second_axis)
    is_passed = Greater (place_rows, border_places)
    passed = Cast <to: int = 1> (is_passed)
    taken_steps = Mul (passed, steps)
    rise = ReduceSum <keepdims: int = 0> (taken_steps, second_axis)
    lowest_level = Slice (levels, first_axis, second_axis, first_axis)
    few_levels = Add (lowest_level, rise)
    outputs = Where (has_levels, few_levels, all_integers)
    table = Cast <to: int = 2> (outputs)
    Y = Gather (table, place)
"""


_DOC_STRINGS = {
    "AdderConv": "The layer of AdderNets, a Conv with |x - w| in the place of x * w, negated: "
    "Y[n,o,y,x] = -sum over c,i,j of |X[n, c, y*s+i*d-p, x*s+j*d-p] - W[o,c,i,j]|, with strides s, "
    "dilations d and pads p. Attributes are those of Conv; outside of X there are zeros, which "
    "count. This body makes a file portable, and is slow: adder-onnx has kernels.",
    "QLinearAdderConv": "AdderConv on integers, with what follows it: "
    "v = x_scale * scale[o] * AdderConv(X - x_zero_point, W - x_zero_point) + bias[o] + "
    "z_scale * (Z - z_zero_point); "
    "Y = min(max(round(max(v, clip_min) / y_scale) + y_zero_point, 0), 2^bits - 1). X and W have "
    "one scale, since |x - w| is not linear. This body makes a file portable, and is slow: "
    "adder-onnx has kernels.",
}

_OF_LEVELS = (
    " Where there are levels, Y is the one nearest to max(v, clip_min) / y_scale + y_zero_point, "
    "of two the lower."
)


def has_levels(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether one of these nodes, or of those in their graphs, is one with levels, or may be."""
    return any(
        attribute.name == "levels" and (len(attribute.ints) > 0 or bool(attribute.ref_attr_name))
        for node in _integer_nodes(nodes)
        for attribute in node.attribute
    )


def write_out_levels(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Gives nodes without levels an empty attribute where other nodes have some.

    Not all tools know the defaults of a function's attributes.

    Returns:
        Whether there are levels, so that the nodes need the body that knows them.
    """
    nodes = list(nodes)
    if not has_levels(nodes):
        return False
    for node in _integer_nodes(nodes):
        if all(attribute.name != "levels" for attribute in node.attribute):
            node.attribute.add(name="levels", type=onnx.AttributeProto.INTS)
    return True


def _integer_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The QLinearAdderConv among these nodes and those in their graphs."""
    for node in nodes:
        if (node.domain, node.op_type) == (DOMAIN, "QLinearAdderConv"):
            yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _integer_nodes(graph.node)


@functools.cache
def _parse(text: str) -> onnx.FunctionProto:
    return onnx.parser.parse_function(text)


def function_bodies(
    opset: int,
    names: Collection[str] = ("AdderConv", "QLinearAdderConv"),
    *,
    levels: bool = True,
) -> list[onnx.FunctionProto]:
    """The operators' bodies for a model that imports ``opset`` of the standard operators.

    Args:
        opset: version of the default domain in the model; a local function must import the same.
        names: of the operators; QLinearAdderConv's body uses AdderConv.
        levels: whether nodes may have the attribute of this name. Where none has, a body without
            it gives the same bits, in fewer nodes.

    Returns:
        One FunctionProto per operator, each a fresh copy.

    Raises:
        ValueError: ``opset`` is below `MIN_OPSET`.
    """
    if opset < MIN_OPSET:
        raise ValueError(f"the bodies need opset {MIN_OPSET} or later, not {opset}")
    bodies = []
    for template in (_ADDER_CONV, _QLINEAR_ADDER_CONV):
        text = template.replace("DOMAIN", DOMAIN).replace("VERSION", str(VERSION))
        text = text.replace("LEVELS", "levels: ints = [0]," if levels else "")
        text = text.replace("TAIL", _FEW_LEVELS if levels else _ALL_INTEGERS)
        body = onnx.FunctionProto()
        body.CopyFrom(_parse(text.replace("OPSET", str(opset))))
        body.doc_string = _DOC_STRINGS[body.name]
        for attribute in body.attribute_proto:
            # What the language of the text cannot say.
            if attribute.name == "clip_min":
                attribute.f = -math.inf
            elif attribute.name == "levels":
                del attribute.ints[:]
                body.doc_string += _OF_LEVELS
        if body.name in names:
            bodies.append(body)
    return bodies
