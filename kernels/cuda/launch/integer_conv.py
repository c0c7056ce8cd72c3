"""One integer adder convolution with its constants on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Device, Launch
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.kernels.cuda.launch.layout import padded_channels
from adder_onnx.kernels.cuda.launch.params import INTEGER_CONV_ARGS, PACK_ARGS
from adder_onnx.kernels.cuda.launch.selection import (
    Product,
    select_distances,
    select_grid,
    select_integer_tile,
)
from adder_onnx.kernels.cuda.launch.variants import (
    INTEGER_CHUNK_TAPS,
    IntegerTile,
    integer_direct,
    integer_gemm,
    integer_pack,
)

__all__ = ["IntegerAdderConv"]

_CHUNK_WORDS = INTEGER_CHUNK_TAPS // 4
_FILTER_ALIGNMENT = 64
_MAX_SIZE = 1 << 31
_MAX_DIRECT_BLOCKS = 1 << 20
_MAX_TAPS = (1 << 32) // 255
_PADDING = 32

_Pair = tuple[int, int]


class IntegerAdderConv:
    """Packed weights, epilogue, and the kernel that is chosen for them: a QLinearAdderConv.

    Args:
        device: where.
        weight: (M, C/group, kH, kW), uint8.
        x_zero_point: of the input and the weight: what padding is.
        scale: (M,), float32, of the sum, the input's scale in it.
        bias: (M,), float32.
        epilogue: what follows.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
        force_direct: for the benchmark: one thread per output, whatever the shape.

    Raises:
        InputError: a sum could exceed 32 bits.
    """

    def __init__(
        self,
        device: Device,
        weight: NDArray[np.uint8],
        x_zero_point: int,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        epilogue: IntegerEpilogue,
        strides: _Pair,
        dilations: _Pair,
        group: int,
        *,
        force_direct: bool = False,
    ) -> None:
        filters, group_in, *kernel = weight.shape
        if group_in * kernel[0] * kernel[1] >= _MAX_TAPS:
            raise InputError(
                f"a filter of shape {list(weight.shape[1:])} has more taps than the CUDA kernels, "
                f"which add up in 32 bits, take: {_MAX_TAPS}; use device='cpu'"
            )
        self.channels, self.filters, self.group = group_in * group, filters, group
        self.kernel = (kernel[0], kernel[1])
        self.strides, self.dilations = strides, dilations
        self._multiprocessors = device.multiprocessors
        self._distances = select_distances(device.target)
        self.tile: IntegerTile | None = None
        if not force_direct:
            self.tile = select_integer_tile(group, group_in, filters // group, self.kernel)
        self._args = np.zeros((), INTEGER_CONV_ARGS)
        self._set(group_in=group_in, group_out=filters // group)
        self._set(kernel_h=kernel[0], kernel_w=kernel[1])
        self._set(stride_h=strides[0], stride_w=strides[1])
        self._set(dilation_h=dilations[0], dilation_w=dilations[1])
        self._set(x_row=padded_channels(self.channels, "uint8"))
        self._set(y_row=padded_channels(filters, "uint8"))
        self._set(**epilogue.fields())
        constants = {
            "weights": self._pack(device, weight),
            "weight_sums": device.upload(weight.sum((1, 2, 3), np.uint32)),
            "scale": device.upload(np.ascontiguousarray(scale, np.float32)),
            "bias": device.upload(np.ascontiguousarray(bias, np.float32)),
            "zeros": device.upload(np.full(_PADDING, x_zero_point, np.uint8)),
        }
        self._set(**{name: device.pointer(array) for name, array in constants.items()})
        self._constants = constants

    def product(self, pixels: int) -> Product[IntegerTile]:
        """The matrix product for so many output pixels; there is a `tile`."""
        assert self.tile is not None
        columns = -(-self.filters // self.group // self.tile.filters) * self.group
        turns = -(-int(self._args["weight_words"]) // (self.tile.chunks * _CHUNK_WORDS))
        return Product("uint8", self.tile, pixels, columns, turns)

    def launch(
        self,
        batch: int,
        in_size: _Pair,
        out_size: _Pair,
        pad_begin: _Pair,
        *,
        force_grid: tuple[IntegerTile, int] | None = None,
    ) -> Launch:
        """The launch for one shape; its fields ``x``, ``y`` and ``z`` are addresses, 0 for no z.

        It depends on nothing but the layer, the shape and the device.

        Args:
            batch: N.
            in_size: height and width of x.
            out_size: height and width of y.
            pad_begin: pads above and to the left.
            force_grid: for the benchmark: what to take of `grids`.

        Raises:
            InputError: the tensors are too large for 32-bit indices.
        """
        pixels = batch * out_size[0] * out_size[1]
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        reach = (max(in_size[0], spans[0]) * in_size[1] + spans[1]) * int(self._args["x_row"])
        if pixels >= _MAX_SIZE or reach >= _MAX_SIZE:
            raise InputError(
                f"{batch} images of {list(in_size)} with {self.channels} channels are too large "
                "for the CUDA kernels, which index with 32 bits: use a smaller batch"
            )
        args = self._args.copy()
        args["pixels"] = pixels
        args["in_h"], args["in_w"] = in_size
        args["out_h"], args["out_w"] = out_size
        args["pad_top"], args["pad_left"] = pad_begin
        if self.tile is None:
            kernel = integer_direct()
            blocks = min(-(-pixels * self.filters // kernel.threads), _MAX_DIRECT_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args, self._constants)
        product = self.product(pixels)
        tile, splits = force_grid or select_grid(product, self._multiprocessors)
        args["splits"] = splits
        scratch = 0
        if splits > 1:
            sums = product.blocks(tile) * splits * tile.pixels * tile.filters * 4
            scratch = SCRATCH_ZEROS + sums
        columns = product.columns // self.group
        grid = (-(-pixels // tile.pixels), columns, self.group * splits)
        return Launch(integer_gemm(tile, self._distances), grid, args, self._constants, scratch)

    def _set(self, **fields: float) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _pack(self, device: Device, weight: NDArray[np.uint8]) -> Any:
        """The packed weights; sets the fields that describe them."""
        filters, group_in, height, width = weight.shape
        positions = height * width
        if self.tile is None:
            # All filters side by side, by single taps: as one group, whatever the groups are.
            group, group_out, per_position = 1, filters, group_in
            words, row, size, beyond = positions * group_in, filters, 1, 0
        else:
            group, group_out, per_position = self.group, filters // self.group, -(-group_in // 4)
            words = -(-positions * per_position // _CHUNK_WORDS) * _CHUNK_WORDS
            row = -(-group_out // _FILTER_ALIGNMENT) * _FILTER_ALIGNMENT
            # What a turn of the loop reads, beyond the last chunk of all, is not computed with.
            size, beyond = 4, self.tile.chunks * _CHUNK_WORDS
            pieces = per_position // _CHUNK_WORDS if self.tile.vector else per_position
            self._set(per_position=pieces, per_position_inverse=_inverse(pieces))
            self._set(kernel_w_inverse=_inverse(width))
        args = np.zeros((), PACK_ARGS)
        args["group"], args["group_in"], args["group_out"] = group, group_in, group_out
        args["kernel_size"], args["words_per_position"] = positions, per_position
        args["weight_words"], args["weight_row"] = words, row
        self._set(weight_words=words, weight_row=row)
        packed = device.empty(((group * words + beyond) * row * size,), np.uint8)
        raw = device.upload(weight)
        kernel = integer_pack(words=self.tile is not None)
        blocks = min(-(-group * words * row // kernel.threads), _MAX_DIRECT_BLOCKS)
        Launch(kernel, (blocks, 1, 1), args).run(
            device, weights=device.pointer(raw), packed=device.pointer(packed)
        )
        return packed


def _inverse(divisor: int) -> int:
    """The factor that divide.cuh divides by ``divisor`` with."""
    return 0 if divisor == 1 else -(-(1 << 32) // divisor)
