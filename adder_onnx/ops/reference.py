"""The operators in NumPy and double precision: the truth that the kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from adder_onnx.ops.conv_attributes import ConvAttributes
from adder_onnx.ops.domain import DOMAIN

__all__ = ["AdderConv", "QLinearAdderConv", "adder_conv", "input_gradient", "qlinear_adder_conv"]


def adder_conv(
    x: NDArray[Any], w: NDArray[Any], attributes: ConvAttributes | None = None
) -> NDArray[np.float64]:
    """AdderConv from its definition (Chen et al., CVPR 2020, equation 2).

    Args:
        x: (N, C, H, W), any real type.
        w: (M, C/group, kH, kW), any real type.
        attributes: strides, pads, dilations and group; the defaults of the operator if None.

    Returns:
        (N, M, oH, oW), float64, the sum of each output taken by NumPy over all its taps.

    Raises:
        ModelError: the shapes contradict each other or the kernel exceeds the padded image.
    """
    a = attributes or ConvAttributes()
    batch, channels, height, width = x.shape
    filters, group_channels, kernel_h, kernel_w = w.shape
    a.check_weight(w.shape, channels)
    out_h, out_w = a.output_size((height, width), (kernel_h, kernel_w))
    top, left, bottom, right = a.resolve_pads((height, width), (kernel_h, kernel_w))
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = np.arange(out_h)[:, None] * a.strides[0] + np.arange(kernel_h) * a.dilations[0]
    columns = np.arange(out_w)[:, None] * a.strides[1] + np.arange(kernel_w) * a.dilations[1]
    patches = padded[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    y = np.empty((batch, filters, out_h, out_w))
    group_filters = filters // a.group
    for m in range(filters):
        first = m // group_filters * group_channels
        window = patches[:, first : first + group_channels]
        taps = np.abs(window - w[m].astype(np.float64)[:, None, None])
        y[:, m] = -taps.sum(axis=(1, 4, 5))
    return y


def input_gradient(
    x: NDArray[Any],
    w: NDArray[Any],
    grad_y: NDArray[Any],
    attributes: ConvAttributes | None = None,
) -> NDArray[np.float64]:
    """The gradient of AdderConv's input as training takes it (the same paper, equation 7).

    Args:
        x: (N, C, H, W), any real type.
        w: (M, C/group, kH, kW), any real type.
        grad_y: (N, M, oH, oW), any real type.
        attributes: as for `adder_conv`.

    Returns:
        (N, C, H, W), float64: of each element the sum of HardTanh(w - x) * grad_y over all taps
        that it is in.
    """
    a = attributes or ConvAttributes()
    height, width = x.shape[2:]
    top, left, bottom, right = a.resolve_pads((height, width), w.shape[2:])
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    gradient = np.zeros_like(padded)
    group_in, group_out = w.shape[1], w.shape[0] // a.group
    for i, j in np.ndindex(w.shape[2:]):
        rows, columns = (
            slice(k * dilation, k * dilation + stride * (size - 1) + 1, stride)
            for k, dilation, stride, size in zip(
                (i, j), a.dilations, a.strides, grad_y.shape[2:], strict=True
            )
        )
        for g in range(a.group):
            at = (slice(None), slice(g * group_in, (g + 1) * group_in), rows, columns)
            of_group = slice(g * group_out, (g + 1) * group_out)
            taps = w[of_group, :, i, j].astype(np.float64)[None, :, :, None, None]
            slopes = np.clip(taps - padded[at][:, None], -1, 1)
            gradient[at] += (slopes * grad_y[:, of_group, None].astype(np.float64)).sum(1)
    return gradient[:, :, top : top + height, left : left + width]


def qlinear_adder_conv(
    x: NDArray[np.uint8],
    w: NDArray[np.uint8],
    x_scale: Any,
    x_zero_point: Any,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    z: NDArray[np.uint8],
    z_scale: Any,
    z_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
    attributes: ConvAttributes | None = None,
    *,
    clip_min: float = -np.inf,
    bits: int = 8,
    levels: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """QLinearAdderConv from its definition: the schema's text, step by step in float32.

    Args:
        x: (N, C, H, W).
        w: (M, C/group, kH, kW).
        x_scale: float32 scalar, of x and w.
        x_zero_point: uint8 scalar, of x and w.
        scale: (M,), of the sum.
        bias: (M,), added to it.
        z: the residual, (N, M, oH, oW), or a scalar zero.
        z_scale: float32 scalar, of z.
        z_zero_point: uint8 scalar, of z.
        y_scale: float32 scalar, of the result.
        y_zero_point: uint8 scalar, of the result.
        attributes: as for `adder_conv`.
        clip_min: lower bound of the activation, -inf or 0.
        bits: the result is at most 2**bits - 1.
        levels: the only values of the result, rising; none for all.

    Returns:
        (N, M, oH, oW).

    Raises:
        ModelError: the shapes contradict each other or the kernel exceeds the padded image.
    """
    zero = int(x_zero_point)
    # Integers, which float64 adds up exactly.
    minus_sum = adder_conv(x.astype(np.int16) - zero, w.astype(np.int16) - zero, attributes)
    value = minus_sum.astype(np.float32) * (np.float32(x_scale) * scale)[:, None, None]
    value = value + bias[:, None, None]
    shifted_z = z.astype(np.float32) - np.float32(z_zero_point)
    value = value + shifted_z * np.float32(z_scale)
    value = np.maximum(value, np.float32(clip_min))
    quotient = value / np.float32(y_scale)
    if len(levels):
        return _nearest_levels(quotient, levels, int(y_zero_point))
    rounded = np.rint(quotient) + np.float32(y_zero_point)
    y: NDArray[np.uint8] = np.clip(rounded, 0, 2**bits - 1).astype(np.uint8)
    return y


def _nearest_levels(
    quotient: NDArray[np.float32], levels: Sequence[int], zero_point: int
) -> NDArray[np.uint8]:
    """The level nearest to each quotient; of two the lower; the first for what is no number."""
    values = np.asarray(levels, np.uint8)
    borders = (values[:-1] / 2.0 + values[1:] / 2.0) - zero_point
    passed = sum((quotient > border).astype(np.intp) for border in borders)
    y: NDArray[np.uint8] = values[passed]
    return y


class AdderConv(OpRun):
    """AdderConv for ``onnx.reference.ReferenceEvaluator(model, new_ops=[AdderConv])``."""

    op_domain = DOMAIN

    def _run(self, x: NDArray[Any], w: NDArray[Any], **attributes: Any) -> tuple[NDArray[Any]]:
        given = {name: value for name, value in attributes.items() if value is not None}
        return (adder_conv(x, w, ConvAttributes.from_mapping(given)).astype(x.dtype),)


class QLinearAdderConv(OpRun):
    """QLinearAdderConv for ``onnx.reference.ReferenceEvaluator(model, new_ops=[…])``."""

    op_domain = DOMAIN

    def _run(self, *inputs: NDArray[Any], **attributes: Any) -> tuple[NDArray[Any]]:
        given = {name: value for name, value in attributes.items() if value is not None}
        own = {name: given.pop(name) for name in ("clip_min", "bits", "levels") if name in given}
        arguments: tuple[Any, ...] = (*inputs, ConvAttributes.from_mapping(given))
        return (qlinear_adder_conv(*arguments, **own),)
