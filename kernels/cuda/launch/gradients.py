"""The gradient of an adder convolution with respect to its input, for one set of weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.layout import padded_channels
from adder_onnx.kernels.cuda.launch.params import GRADIENT_ARGS, PACK_ARGS
from adder_onnx.kernels.cuda.launch.selection import select_gradient_tile
from adder_onnx.kernels.cuda.launch.variants import (
    GRADIENT_DEPTH,
    GRADIENT_TILES,
    input_gradient,
    input_gradient_direct,
    pack_gradient,
)

__all__ = ["InputGradient"]

_CHANNEL_ALIGNMENT = max(tile.channels for tile in GRADIENT_TILES)
_MAX_SIZE = 1 << 31
_MAX_BLOCKS = 1 << 20

_Pair = tuple[int, int]


class InputGradient:
    """Packed weights, and the kernel that is chosen for them.

    Args:
        device: where.
        weight: (M, C/group, kH, kW), float32, an array of the device.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
    """

    def __init__(
        self, device: Device, weight: Any, strides: _Pair, dilations: _Pair, group: int
    ) -> None:
        filters, group_in, *kernel = (int(size) for size in weight.shape)
        group_out = filters // group
        self.channels = group * group_in
        self.strides = strides
        self.tile = select_gradient_tile(group, group_in, group_out)
        self._args = np.zeros((), GRADIENT_ARGS)
        self._set(group=group, group_in=group_in, group_out=group_out)
        self._set(x_row=padded_channels(self.channels, "float32"))
        self._set(y_row=padded_channels(filters, "float32"))
        self._set(kernel_h=kernel[0], kernel_w=kernel[1])
        self._set(stride_h=strides[0], stride_w=strides[1])
        self._set(dilation_h=dilations[0], dilation_w=dilations[1])
        for axis, stride, dilation in zip("hw", strides, dilations, strict=True):
            common = math.gcd(stride, dilation)
            self._set(**{f"step_{axis}": stride // common, f"shift_{axis}": dilation // common})
        self._weights = weight if self.tile is None else self._pack(device, weight)
        self._set(weights=device.pointer(self._weights))

    def launch(self, batch: int, in_size: _Pair, out_size: _Pair, pad_begin: _Pair) -> Launch:
        """The launch for one shape; its fields ``x``, ``grad_y`` and ``grad_x`` are addresses.

        All are channels-last; the padding of ``grad_y`` beyond its channels is zero.

        Args:
            batch: N.
            in_size: height and width of x.
            out_size: height and width of y.
            pad_begin: pads above and to the left.

        Raises:
            InputError: the tensors are too large for 32-bit indices.
        """
        if max(batch * math.prod(in_size), batch * math.prod(out_size)) >= _MAX_SIZE:
            raise InputError(
                f"{batch} images of {list(in_size)} are too large for the CUDA kernels, which "
                "index with 32 bits: use a smaller batch"
            )
        args = self._args.copy()
        args["batch"] = batch
        args["in_h"], args["in_w"] = in_size
        args["out_h"], args["out_w"] = out_size
        args["pad_top"], args["pad_left"] = pad_begin
        if self.tile is None:
            kernel = input_gradient_direct()
            elements = batch * math.prod(in_size) * self.channels
            blocks = min(-(-elements // kernel.threads), _MAX_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args, self._weights)
        # A phase is the pixels between which the stride lies; the first one is the largest.
        phases = [min(stride, size) for stride, size in zip(self.strides, in_size, strict=True)]
        largest = [-(-size // stride) for stride, size in zip(self.strides, in_size, strict=True)]
        tiles = -(-batch * math.prod(largest) // self.tile.pixels)
        args["phases_w"], args["tiles"] = phases[1], tiles
        channel_tiles = -(-int(args["group_in"]) // self.tile.channels)
        grid = (math.prod(phases) * tiles, channel_tiles, int(args["group"]))
        return Launch(input_gradient(self.tile), grid, args, self._weights)

    def _set(self, **fields: int) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _pack(self, device: Device, weight: Any) -> Any:
        """The packed weights; sets the fields that describe them."""
        kernel = pack_gradient()
        args = np.zeros((), PACK_ARGS)
        for name in ("group", "group_in", "group_out"):
            args[name] = self._args[name]
        positions = int(self._args["kernel_h"]) * int(self._args["kernel_w"])
        filters = -(-int(self._args["group_out"]) // GRADIENT_DEPTH) * GRADIENT_DEPTH
        row = -(-int(self._args["group_in"]) // _CHANNEL_ALIGNMENT) * _CHANNEL_ALIGNMENT
        args["kernel_size"], args["words_per_position"] = positions, filters
        args["weight_words"], args["weight_row"] = positions * filters, row
        self._set(weight_filters=filters, weight_row=row)
        size = int(self._args["group"]) * positions * filters * row
        packed = device.empty((size,), np.float32)
        blocks = min(-(-size // kernel.threads), _MAX_BLOCKS)
        Launch(kernel, (blocks, 1, 1), args).run(
            device, weights=device.pointer(weight), packed=device.pointer(packed)
        )
        return packed
