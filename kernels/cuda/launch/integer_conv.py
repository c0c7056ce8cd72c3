"""One integer adder convolution with its constants on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Device, Launch
from adder_onnx.kernels.cuda.launch.geometry import Geometry, Pair, check_counts, with_sizes
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
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
_MAX_DIRECT_BLOCKS = 1 << 20
_MAX_TAPS = (1 << 32) // 255
_PADDING = 32


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
        strides: Pair,
        dilations: Pair,
        group: int,
        *,
        force_direct: bool = False,
    ) -> None:
        _, group_in, height, width = weight.shape
        if group_in * height * width >= _MAX_TAPS:
            raise InputError(
                f"a filter of shape {list(weight.shape[1:])} has more taps than the CUDA kernels, "
                f"which add up in 32 bits, take: {_MAX_TAPS}; use device='cpu'"
            )
        shape = (weight.shape[0], group_in, height, width)
        self.geometry = g = Geometry(shape, strides, dilations, group, "uint8")
        self._multiprocessors = device.multiprocessors
        self._distances = select_distances(device.target)
        self.tile: IntegerTile | None = None
        if not force_direct:
            self.tile = select_integer_tile(group, group_in, g.group_out, g.kernel)
        self._args = g.args(INTEGER_CONV_ARGS)
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
        g = self.geometry
        columns = -(-g.group_out // self.tile.filters) * g.group
        turns = -(-int(self._args["weight_words"]) // (self.tile.chunks * _CHUNK_WORDS))
        return Product(g.type, self.tile, pixels, columns, turns)

    def launch(
        self,
        batch: int,
        in_size: Pair,
        out_size: Pair,
        pad_begin: Pair,
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
        g = self.geometry
        pixels = batch * out_size[0] * out_size[1]
        images = f"{batch} images of {list(in_size)} with {g.channels} channels"
        check_counts(images, pixels, g.reach(in_size))
        args = with_sizes(self._args, in_size, out_size, pad_begin)
        args["pixels"] = pixels
        if self.tile is None:
            kernel = integer_direct()
            blocks = min(-(-pixels * g.filters // kernel.threads), _MAX_DIRECT_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args, self._constants)
        product = self.product(pixels)
        tile, splits = force_grid or select_grid(product, self._multiprocessors)
        args["splits"] = splits
        scratch = 0
        if splits > 1:
            sums = product.blocks(tile) * splits * tile.pixels * tile.filters * 4
            scratch = SCRATCH_ZEROS + sums
        columns = product.columns // g.group
        grid = (-(-pixels // tile.pixels), columns, g.group * splits)
        return Launch(integer_gemm(tile, self._distances), grid, args, self._constants, scratch)

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _pack(self, device: Device, weight: NDArray[np.uint8]) -> Any:
        """The packed weights; sets the fields that describe them."""
        g = self.geometry
        positions = g.kernel[0] * g.kernel[1]
        if self.tile is None:
            # All filters side by side, by single taps: as one group, whatever the groups are.
            group, group_out, per_position = 1, g.filters, g.group_in
            words, row, size, beyond = positions * g.group_in, g.filters, 1, 0
        else:
            group, group_out, per_position = g.group, g.group_out, -(-g.group_in // 4)
            words = -(-positions * per_position // _CHUNK_WORDS) * _CHUNK_WORDS
            row = -(-group_out // _FILTER_ALIGNMENT) * _FILTER_ALIGNMENT
            # What a turn of the loop reads, beyond the last chunk of all, is not computed with.
            size, beyond = 4, self.tile.chunks * _CHUNK_WORDS
            pieces = per_position // _CHUNK_WORDS if self.tile.vector else per_position
            self._set(per_position=pieces, per_position_inverse=_inverse(pieces))
            self._set(kernel_w_inverse=_inverse(g.kernel[1]))
        args = np.zeros((), PACK_ARGS)
        args["group"], args["group_in"], args["group_out"] = group, g.group_in, group_out
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
