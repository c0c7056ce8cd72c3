"""Launching max pooling."""

from __future__ import annotations

import numpy as np

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import Launch
from adder_onnx.kernels.cuda.launch.layout import padded_channels
from adder_onnx.kernels.cuda.launch.params import CONV_ARGS
from adder_onnx.kernels.cuda.launch.variants import max_pool

__all__ = ["launch_max_pool"]

_UNIT = 16
_MAX_SIZE = 1 << 31
_MAX_BLOCKS = 1 << 20

_Pair = tuple[int, int]


def launch_max_pool(
    shape: tuple[int, int, int, int],
    out_size: _Pair,
    kernel: _Pair,
    strides: _Pair,
    dilations: _Pair,
    pad_begin: _Pair,
) -> Launch:
    """The launch for uint8 images of ``shape`` (N, C, H, W); fields ``x`` and ``y``.

    Args:
        shape: of x.
        out_size: height and width of y.
        kernel: its height and width.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        pad_begin: pads above and to the left.

    Raises:
        InputError: there are too many output pixels.
    """
    batch, channels, height, width = shape
    pixels, row = batch * out_size[0] * out_size[1], padded_channels(channels, "uint8")
    if pixels >= _MAX_SIZE:
        raise InputError(
            f"{pixels} pixels are too many for the CUDA kernels, which index with 32 bits: use a "
            "smaller batch"
        )
    args = np.zeros((), CONV_ARGS)
    args["pixels"] = pixels
    args["in_h"], args["in_w"] = height, width
    args["out_h"], args["out_w"] = out_size
    args["x_row"] = args["y_row"] = row
    args["kernel_h"], args["kernel_w"] = kernel
    args["stride_h"], args["stride_w"] = strides
    args["dilation_h"], args["dilation_w"] = dilations
    args["pad_top"], args["pad_left"] = pad_begin
    pool = max_pool()
    blocks = min(-(-pixels * (row // _UNIT) // pool.threads), _MAX_BLOCKS)
    return Launch(pool, (blocks, 1, 1), args)
