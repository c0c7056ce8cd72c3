"""Schemas of the operator set, with type and shape inference, in onnx's own registry.

Registering makes ``onnx.checker``, ``onnx.shape_inference`` and ``onnx.parser`` of this process
know the operators. A file needs none of it: it carries each operator's function body.
"""

from __future__ import annotations

import atexit
import itertools
import math
from collections.abc import Sequence
from typing import Any

import onnx
from onnx.defs import OpSchema

from adder_onnx.errors import ModelError
from adder_onnx.ops.conv_attributes import ConvAttributes
from adder_onnx.ops.domain import DOMAIN, VERSION
from adder_onnx.text import shorten

__all__ = [
    "ADDER_CONV",
    "MOST_LEVELS",
    "QLINEAR_ADDER_CONV",
    "check_levels",
    "register_schemas",
]

MOST_LEVELS = 16
"""Of the values that an output of few levels takes."""

_DOC = """
Adder convolution (Chen et al., CVPR 2020, equation 2): the negated L1 distance between every
patch of the input and every filter,

    Y[n,o,y,x] = -sum over c,i,j of |X[n, c, y*s_h + i*d_h - p_t, x*s_w + j*d_w - p_l] - W[o,c,i,j]|

with strides s, dilations d and pads p. Padding is with zeros, and a padded tap costs |0 - W|.
Attributes have the meaning they have in Conv.
"""


def _attribute(name: str, default: Any, description: str) -> OpSchema.Attribute:
    """An optional attribute; an empty list stands for one of integers."""
    type_ = onnx.AttributeProto.INTS if default == [] else None
    attribute = onnx.helper.make_attribute(name, default, attr_type=type_)
    return OpSchema.Attribute(name, attribute, description)


def _read_attributes(ctx: Any) -> dict[str, Any]:
    names = (
        *("strides", "pads", "dilations", "group", "auto_pad", "kernel_shape"),
        *("bits", "clip_min", "levels"),
    )
    found = ((name, ctx.get_attribute(name)) for name in names)
    return {name: onnx.helper.get_attribute_value(a) for name, a in found if a is not None}


def _dims(tensor: onnx.TypeProto.Tensor) -> list[int | str | None] | None:
    """Dimensions as an int where known, a str where symbolic; None for an unknown rank."""
    if not tensor.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim
    ]


_QLINEAR_DOC = """
AdderConv on quantized tensors, with what follows it in a network. X and W share one scale and one
zero point, since |x - w| is not linear; padding is with the zero point. Arithmetic is float32, each
step rounded, to nearest and to even:

    acc = sum over c,i,j of |X - W|, an integer
    v   = acc * (-x_scale * scale[m]) + bias[m]
    v   = v + (Z - z_zero_point) * z_scale
    v   = max(v, clip_min)
    Y   = min(max(round(v / y_scale) + y_zero_point, 0), 2^bits - 1)

Where there are levels, n of them, Y only takes these values: the nearest one, of two the lower,

    q = v / y_scale
    Y = levels[number of i in 1..n-1 with q > (levels[i-1] + levels[i]) / 2 - y_zero_point]

and levels[0] for what is no number. Where nothing is added, Z is a scalar zero.
"""


def _infer_adder_conv(ctx: Any) -> None:
    """Type and shape inference: the output's type is X's, its shape that of ONNX ``Conv``.

    Beyond that, a symbolic height or width that the operator keeps stays the same symbol. It serves
    QLinearAdderConv as well.
    """
    x_type, w_type = ctx.get_input_type(0), ctx.get_input_type(1)
    if x_type is None:
        return
    y_type = onnx.TypeProto()
    y_type.tensor_type.elem_type = x_type.tensor_type.elem_type
    x = _dims(x_type.tensor_type)
    w = None if w_type is None else _dims(w_type.tensor_type)
    values = _read_attributes(ctx)
    try:
        _check_quantization(values)
        attributes = ConvAttributes.from_mapping(values)
        for name, dims in (("X", x), ("W", w)):
            if dims is not None and len(dims) != 4:
                raise ModelError(f"{name} has {len(dims)} dimensions; expected 4")
        if x is not None:
            kernel: list[Any] = list(values.get("kernel_shape", w[2:] if w else [None, None]))
            if w is not None and all(isinstance(d, int) for d in w):
                channels = x[1] if isinstance(x[1], int) else None
                attributes.check_weight(
                    [d for d in w if isinstance(d, int)], channels, values.get("kernel_shape")
                )
            y: list[int | str | None] = [x[0], w[0] if w else None, None, None]
            if all(isinstance(d, int) for d in (*x[2:], *kernel)):
                y[2:] = attributes.output_size([int(d or 0) for d in x[2:]], kernel)
            else:
                y[2:] = [
                    size if isinstance(k, int) and attributes.keeps_size(axis, k) else None
                    for axis, (size, k) in enumerate(zip(x[2:], kernel, strict=True))
                ]
            shape = y_type.tensor_type.shape
            for dim in y:
                proto = shape.dim.add()
                if isinstance(dim, int):
                    proto.dim_value = dim
                elif dim is not None:
                    proto.dim_param = dim
    except ModelError as error:
        raise onnx.shape_inference.InferenceError(f"{ctx.get_display_name()}: {error}") from error
    ctx.set_output_type(0, y_type)


def _conv_attributes() -> list[OpSchema.Attribute]:
    return [
        _attribute("auto_pad", "NOTSET", "NOTSET, SAME_UPPER, SAME_LOWER or VALID."),
        _attribute("dilations", [1, 1], "Dilation along height and width."),
        _attribute("group", 1, "Number of groups of channels."),
        OpSchema.Attribute(
            "kernel_shape",
            OpSchema.AttrType.INTS,
            "Height and width of W; read from W where absent.",
            required=False,
        ),
        _attribute("pads", [0, 0, 0, 0], "Zeros added at top, left, bottom, right."),
        _attribute("strides", [1, 1], "Stride along height and width."),
    ]


def _check_quantization(values: dict[str, Any]) -> None:
    bits, clip_min = values.get("bits", 8), values.get("clip_min", -math.inf)
    if not 2 <= bits <= 8:
        raise ModelError(f"attribute bits is {bits}; expected 2 to 8")
    if clip_min not in (-math.inf, 0):
        raise ModelError(f"attribute clip_min is {clip_min}; expected -inf or 0")
    check_levels(values.get("levels", ()), bits)


def check_levels(levels: Sequence[int], bits: int) -> None:
    """Checks the attribute ``levels``.

    Raises:
        ModelError: they are neither none nor 2 to 16, do not rise, or are not from 0 to 2^bits - 1.
    """
    if not levels:
        return
    rise = all(a < b for a, b in itertools.pairwise(levels))
    if not (2 <= len(levels) <= MOST_LEVELS and rise and levels[0] >= 0 and levels[-1] < 2**bits):
        raise ModelError(
            f"attribute levels is {shorten(str(list(levels[:100])), 60)}; expected 2 to "
            f"{MOST_LEVELS} integers that rise, from 0 to {2**bits - 1}"
        )


def _make_adder_conv() -> OpSchema:
    schema = OpSchema(
        "AdderConv",
        DOMAIN,
        VERSION,
        doc=_DOC,
        inputs=[
            OpSchema.FormalParameter("X", "T", "Input, (N, C, H, W)."),
            OpSchema.FormalParameter("W", "T", "Filters, (M, C/group, kH, kW)."),
        ],
        outputs=[OpSchema.FormalParameter("Y", "T", "Output, (N, M, oH, oW).")],
        type_constraints=[
            (
                "T",
                ["tensor(float16)", "tensor(float)", "tensor(double)"],
                "Floating-point tensors.",
            )
        ],
        attributes=_conv_attributes(),
    )
    schema.set_type_and_shape_inference_function(_infer_adder_conv)
    return schema


def _make_qlinear_adder_conv() -> OpSchema:
    schema = OpSchema(
        "QLinearAdderConv",
        DOMAIN,
        VERSION,
        doc=_QLINEAR_DOC,
        inputs=[
            OpSchema.FormalParameter("X", "Q", "Input, (N, C, H, W)."),
            OpSchema.FormalParameter("W", "Q", "Filters, (M, C/group, kH, kW)."),
            OpSchema.FormalParameter("x_scale", "F", "Of X and W, scalar."),
            OpSchema.FormalParameter("x_zero_point", "Q", "Of X and W, scalar."),
            OpSchema.FormalParameter("scale", "F", "Of the sum, (M)."),
            OpSchema.FormalParameter("bias", "F", "Added to it, (M)."),
            OpSchema.FormalParameter("Z", "Q", "Residual, (N, M, oH, oW), or a scalar zero."),
            OpSchema.FormalParameter("z_scale", "F", "Of Z, scalar."),
            OpSchema.FormalParameter("z_zero_point", "Q", "Of Z, scalar."),
            OpSchema.FormalParameter("y_scale", "F", "Of Y, scalar."),
            OpSchema.FormalParameter("y_zero_point", "Q", "Of Y, scalar."),
        ],
        outputs=[OpSchema.FormalParameter("Y", "Q", "Output, (N, M, oH, oW).")],
        type_constraints=[
            ("Q", ["tensor(uint8)"], "Quantized tensors."),
            ("F", ["tensor(float)"], "Scales and biases."),
        ],
        attributes=[
            *_conv_attributes(),
            _attribute("bits", 8, "Y is at most 2^bits - 1; 2 to 8."),
            _attribute("clip_min", -math.inf, "Lower bound of the activation: -inf or 0."),
            _attribute("levels", [], "The only values of Y, 2 to 16 that rise; none: all."),
        ],
    )
    schema.set_type_and_shape_inference_function(_infer_adder_conv)
    return schema


ADDER_CONV = _make_adder_conv()
QLINEAR_ADDER_CONV = _make_qlinear_adder_conv()


def register_schemas() -> None:
    """Adds the operators to ``onnx.defs`` where they are not there yet; may be called again."""
    for schema in (ADDER_CONV, QLINEAR_ADDER_CONV):
        if not onnx.defs.has(schema.name, DOMAIN):
            onnx.defs.register_schema(schema)
            # onnx before 1.23 would let go of the inference function, which is Python's, after
            # Python has ended, and the process would crash when all its work is done.
            atexit.register(_deregister, schema)


def _deregister(schema: OpSchema) -> None:
    if onnx.defs.has(schema.name, DOMAIN):
        onnx.defs.deregister_schema(schema.name, schema.since_version, DOMAIN)
