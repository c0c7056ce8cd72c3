"""The gradient of an adder convolution with respect to its input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.geometry import Geometry, Pair, check_counts, with_sizes
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
_MAX_BLOCKS = 1 << 20


class InputGradient:
    """The kernel that is chosen for a layer, whose weights change from run to run.

    Args:
        weight: their shape, (M, C/group, kH, kW); they are float32.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
    """

    def __init__(
        self, weight: tuple[int, int, int, int], strides: Pair, dilations: Pair, group: int
    ) -> None:
        self.geometry = g = Geometry(weight, strides, dilations, group, "float32")
        self.tile = select_gradient_tile(group, g.group_in, g.group_out)
        self._args = g.args(GRADIENT_ARGS)
        self._set(group=group)
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

    def launch(self, batch: int, in_size: Pair, out_size: Pair, pad_begin: Pair) -> Launch:
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
        g = self.geometry
        images = f"{batch} images of {list(in_size)}"
        check_counts(images, batch * math.prod(in_size), batch * math.prod(out_size))
        args = with_sizes(self._args, in_size, out_size, pad_begin)
        args["batch"] = batch
        if self.tile is None:
            kernel = input_gradient_direct()
            elements = batch * math.prod(in_size) * g.channels
            blocks = min(-(-elements // kernel.threads), _MAX_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args)
        # A phase is the pixels between which the stride lies; the first one is the largest.
        phases = [min(stride, size) for stride, size in zip(g.strides, in_size, strict=True)]
        largest = [-(-size // stride) for stride, size in zip(g.strides, in_size, strict=True)]
        tiles = -(-batch * math.prod(largest) // self.tile.pixels)
        args["phases_w"], args["tiles"] = phases[1], tiles
        channel_tiles = -(-g.group_in // self.tile.channels)
        grid = (math.prod(phases) * tiles, channel_tiles, g.group)
        return Launch(input_gradient(self.tile), grid, args)

    def _set(self, **fields: int) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _plan_packing(self) -> tuple[tuple[int, int, int, int], Launch]:
        """The shape of packed weights, and the launch; sets the fields that describe them."""
        g = self.geometry
        positions = g.kernel[0] * g.kernel[1]
        filters = -(-g.group_out // GRADIENT_DEPTH) * GRADIENT_DEPTH
        row = -(-g.group_in // _CHANNEL_ALIGNMENT) * _CHANNEL_ALIGNMENT
        self._set(weight_filters=filters, weight_row=row)
        args = np.zeros((), PACK_ARGS)
        args["group"], args["group_in"], args["group_out"] = g.group, g.group_in, g.group_out
        args["kernel_size"], args["words_per_position"] = positions, filters
        args["weight_words"], args["weight_row"] = positions * filters, row
        shape = (g.group, positions, filters, row)
        kernel = pack_gradient()
        blocks = min(-(-math.prod(shape) // kernel.threads), _MAX_BLOCKS)
        return shape, Launch(kernel, (blocks, 1, 1), args)
