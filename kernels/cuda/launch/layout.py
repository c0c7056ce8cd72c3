"""Launching the conversions between (N, C, H, W) and channels-last."""

from __future__ import annotations

import numpy as np

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import Launch
from adder_onnx.kernels.cuda.launch.params import LAYOUT_ARGS
from adder_onnx.kernels.cuda.launch.variants import Kernel, nchw_to_nhwc, nhwc_to_nchw

__all__ = ["enter", "leave", "nhwc_size", "padded_channels"]

_ROW_BYTES = 16
_TILE = 32
_MAX_BATCH_BLOCKS = 65535
_MAX_SIZE = 1 << 31

_Shape = tuple[int, int, int, int]
_Quantization = tuple[float, int, int]
"""Scale, zero point, and the largest integer."""


def padded_channels(channels: int, type_: str) -> int:
    """Elements from one pixel to the next: channels rounded up to 16 bytes."""
    step = _ROW_BYTES // np.dtype(type_).itemsize
    return -(-channels // step) * step


def nhwc_size(shape: _Shape, type_: str) -> int:
    """Bytes of a channels-last tensor of ``shape`` (N, C, H, W).

    Raises:
        InputError: one image has 2**31 elements or more.
    """
    batch, channels, height, width = shape
    image = height * width * padded_channels(channels, type_)
    if image >= _MAX_SIZE or batch >= _MAX_SIZE:
        raise InputError(
            f"a tensor of shape {list(shape)} is too large for the CUDA kernels: an image may have "
            "2**31 elements; use device='cpu'"
        )
    return batch * image * np.dtype(type_).itemsize


def enter(
    shape: _Shape,
    from_: str,
    to: str,
    quantization: _Quantization | None = None,
    table: int = 0,
) -> Launch:
    """From (N, C, H, W), ``shape``, to channels-last; fields ``from`` and ``to``.

    ``quantization`` makes float32 uint8; ``table``, the address of 256 bytes or 0, says what each
    of these becomes.
    """
    row = padded_channels(shape[1], to)
    launch = _launch(nchw_to_nhwc(from_, to), shape, row, quantization)
    launch.args["table"] = table
    return launch


def leave(shape: _Shape, from_: str, to: str, quantization: _Quantization | None = None) -> Launch:
    """From channels-last to (N, C, H, W), ``shape``; fields ``from`` and ``to``.

    ``quantization`` makes uint8 float32.
    """
    row = padded_channels(shape[1], from_)
    return _launch(nhwc_to_nchw(from_, to), shape, row, quantization)


def _launch(kernel: Kernel, shape: _Shape, row: int, quantization: _Quantization | None) -> Launch:
    batch, channels, height, width = shape
    args = np.zeros((), LAYOUT_ARGS)
    args["batch"], args["channels"], args["pixels"] = batch, channels, height * width
    args["row"] = row
    if quantization is not None:
        args["scale"], args["zero_point"], args["top"] = quantization
    grid = (-(-height * width // _TILE), -(-row // _TILE), min(batch, _MAX_BATCH_BLOCKS))
    return Launch(kernel, grid, args)
