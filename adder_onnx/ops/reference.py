"""The operators in NumPy and double precision: the truth that the kernels are tested against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from adder_onnx.ops.conv_attributes import ConvAttributes
from adder_onnx.ops.domain import DOMAIN

__all__ = ["AdderConv", "adder_conv"]


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


class AdderConv(OpRun):
    """AdderConv for ``onnx.reference.ReferenceEvaluator(model, new_ops=[AdderConv])``."""

    op_domain = DOMAIN

    def _run(self, x: NDArray[Any], w: NDArray[Any], **attributes: Any) -> tuple[NDArray[Any]]:
        given = {name: value for name, value in attributes.items() if value is not None}
        return (adder_conv(x, w, ConvAttributes.from_mapping(given)).astype(x.dtype),)
