"""The gradient of an adder convolution with respect to its input."""

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
    """The kernel that is chosen for a layer, whose weights change from run to run.

    Args:
        weight: their shape, (M, C/group, kH, kW); they are float32.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
    """

    def __init__(
        self, weight: tuple[int, int, int, int], strides: _Pair, dilations: _Pair, group: int
    ) -> None:
        filters, group_in, *kernel = weight
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
        self._packed_shape, self._packing = self._plan_packing()

    def pack(self, device: Device, weight: Any) -> Any:
        """Weights, an array of the device, as a launch takes them: another one, or the same."""
        if self.tile is None:
            return weight
        packed = device.empty(self._packed_shape, np.float32)
        addresses = {"weights": device.pointer(weight), "packed": device.pointer(packed)}
        self._packing.run(device, **addresses)
        return packed

    def launch(self, batch: int, in_size: _Pair, out_size: _Pair, pad_begin: _Pair) -> Launch:
        """The launch for one shape.

        Its fields ``x``, ``grad_y`` and ``grad_x`` are addresses of channels-last tensors, where
        the padding of ``grad_y`` beyond its channels is zero, ``weights`` that of what `pack` gave.

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
            return Launch(kernel, (blocks, 1, 1), args)
        # A phase is the pixels between which the stride lies; the first one is the largest.
        phases = [min(stride, size) for stride, size in zip(self.strides, in_size, strict=True)]
        largest = [-(-size // stride) for stride, size in zip(self.strides, in_size, strict=True)]
        tiles = -(-batch * math.prod(largest) // self.tile.pixels)
        args["phases_w"], args["tiles"] = phases[1], tiles
        channel_tiles = -(-int(args["group_in"]) // self.tile.channels)
        grid = (math.prod(phases) * tiles, channel_tiles, int(args["group"]))
        return Launch(input_gradient(self.tile), grid, args)

    def _set(self, **fields: int) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _plan_packing(self) -> tuple[tuple[int, int, int, int], Launch]:
        """The shape of packed weights, and the launch; sets the fields that describe them."""
        group, group_in, group_out, kernel_h, kernel_w = (
            int(self._args[name])
            for name in ("group", "group_in", "group_out", "kernel_h", "kernel_w")
        )
        filters = -(-group_out // GRADIENT_DEPTH) * GRADIENT_DEPTH
        row = -(-group_in // _CHANNEL_ALIGNMENT) * _CHANNEL_ALIGNMENT
        self._set(weight_filters=filters, weight_row=row)
        args = np.zeros((), PACK_ARGS)
        args["group"], args["group_in"], args["group_out"] = group, group_in, group_out
        args["kernel_size"], args["words_per_position"] = kernel_h * kernel_w, filters
        args["weight_words"], args["weight_row"] = kernel_h * kernel_w * filters, row
        shape = (group, kernel_h * kernel_w, filters, row)
        kernel = pack_gradient()
        blocks = min(-(-math.prod(shape) // kernel.threads), _MAX_BLOCKS)
        return shape, Launch(kernel, (blocks, 1, 1), args)
