"""Adder layers in the native kernels, on arrays as they are calibrated with."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.kernels.cpu import AdderConv, Program, padded_channels, select_isa
from adder_onnx.runtime.interruption.run_control import call_interruptibly

__all__ = ["run_layer", "sums"]

Floats = NDArray[np.float32]

_MAX_ARENA_BYTES = 1 << 23
"""Bound on the kernels' copies of images for a thread, unless one image is larger."""


def run_layer(
    node: AdderNode,
    x: Floats,
    residual: Floats | None,
    weight: Floats,
    scale: Floats,
    bias: Floats,
    threads: int,
) -> Floats:
    """The output of an adder node with other constants than its own.

    Args:
        node: says what else there is: strides, pads, bounds of the output.
        x: (N, C, H, W).
        residual: (N, M, oH, oW), where the node has one.
        weight: (M, C/group, kH, kW).
        scale: (M,).
        bias: (M,).
        threads: to use.

    Returns:
        (N, M, oH, oW).
    """
    a, kernel = node.attributes, weight.shape[2:]
    batch, channels, *in_size = x.shape
    out_size = a.output_size(in_size, kernel)
    pads = a.resolve_pads(in_size, kernel)
    conv = AdderConv(
        np.ascontiguousarray(weight),
        np.ascontiguousarray(scale),
        np.ascontiguousarray(bias),
        node.clip_min,
        node.clip_max,
        a.strides,
        a.dilations,
        a.group,
        select_isa(),
        "exact",
    )
    in_shape = (channels, in_size[0], in_size[1])
    out_shape = (weight.shape[0], *out_size)
    x_floats, y_floats = (math.prod(s[1:]) * padded_channels(s[0]) for s in (in_shape, out_shape))
    image_floats = x_floats + y_floats * (1 if residual is None else 2)
    images = max(1, min(batch, _MAX_ARENA_BYTES // (4 * max(image_floats, 1))))
    program = Program(batch, images)
    z_at, y_at = -1, images * x_floats
    program.add_nchw_to_nhwc(0, (batch, *in_shape), 0, "float32", "float32")
    inputs = [np.ascontiguousarray(x)]
    if residual is not None:
        z_at, y_at = y_at, y_at + images * y_floats
        program.add_nchw_to_nhwc(1, (batch, *out_shape), z_at, "float32", "float32")
        inputs.append(np.ascontiguousarray(residual))
    program.add_adder_conv(
        conv, batch, (in_size[0], in_size[1]), out_size, (pads[0], pads[1]), 0, z_at, y_at
    )
    program.add_nhwc_to_nchw(y_at, (batch, *out_shape), 0, "float32", "float32")
    y = np.empty((batch, *out_shape), np.float32)
    call_interruptibly(
        partial(
            program.run, np.empty(program.arena_size(threads), np.float32), inputs, [y], threads
        )
    )
    return y


def sums(
    columns: Floats, weight: Floats, group: int, threads: int, *, arithmetic: str = "exact"
) -> Floats:
    """Sums of absolute differences, of each filter and each column.

    Args:
        columns: (C * kH * kW, samples), the channels of a group together.
        weight: (M, C/group, kH, kW).
        group: number of groups.
        threads: to use.
        arithmetic: of the kernels; of integers both have the exact sums, and ``fast`` is faster.

    Returns:
        (M, samples).
    """
    filters, (taps, samples) = len(weight), columns.shape
    conv = AdderConv(
        np.ascontiguousarray(weight.reshape(filters, -1, 1, 1)),
        np.full(filters, -1, np.float32),
        np.zeros(filters, np.float32),
        -math.inf,
        math.inf,
        (1, 1),
        (1, 1),
        group,
        select_isa(),
        arithmetic,
    )
    program = Program(1, 1)
    y_at = samples * padded_channels(taps)
    program.add_nchw_to_nhwc(0, (1, taps, samples, 1), 0, "float32", "float32")
    program.add_adder_conv(conv, 1, (samples, 1), (samples, 1), (0, 0), 0, -1, y_at)
    program.add_nhwc_to_nchw(y_at, (1, filters, samples, 1), 0, "float32", "float32")
    y = np.empty((1, filters, samples, 1), np.float32)
    arena = np.empty(program.arena_size(threads), np.float32)
    inputs = [np.ascontiguousarray(columns).reshape(1, taps, samples, 1)]
    call_interruptibly(partial(program.run, arena, inputs, [y], threads))
    return y.reshape(filters, samples)
