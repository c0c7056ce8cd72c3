"""One adder convolution with its constants on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Device, Launch
from adder_onnx.kernels.cuda.launch.layout import padded_channels
from adder_onnx.kernels.cuda.launch.params import CONV_ARGS, PACK_ARGS
from adder_onnx.kernels.cuda.launch.selection import Product, select_grid, select_tile
from adder_onnx.kernels.cuda.launch.variants import (
    PIECE_WORDS,
    TURN,
    Tile,
    direct,
    gemm,
    pack,
    partial_bytes,
    taps_per_word,
)

__all__ = ["AdderConv"]

_MAX_SIZE = 1 << 31
_MAX_DIRECT_BLOCKS = 1 << 20
_ZEROS = 32
_PIECES_AHEAD = 2 * 4

_Pair = tuple[int, int]


class AdderConv:
    """Packed weights, epilogue, and the kernel that is chosen for them.

    Args:
        device: where.
        weight: (M, C/group, kH, kW) of ``type_``, an array of NumPy or of the device; or its shape
            alone, where each run has weights of its own, by `pack`.
        scale: (M,), float32.
        bias: (M,), float32.
        clip: lower and upper bound of the output.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
        type_: ``float32`` or ``float16``: of the tensors inside the chain and of the weight.
        force_direct: for the benchmark: one thread per output, whatever the shape.
    """

    def __init__(
        self,
        device: Device,
        weight: Any,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        clip: tuple[float, float],
        strides: _Pair,
        dilations: _Pair,
        group: int,
        type_: str,
        *,
        force_direct: bool = False,
    ) -> None:
        shape = weight if isinstance(weight, tuple) else weight.shape
        filters, group_in, *kernel = (int(size) for size in shape)
        self.type = type_
        self.group = group
        self._multiprocessors = device.multiprocessors
        self.channels, self.filters = group_in * group, filters
        self.kernel = (kernel[0], kernel[1])
        self.strides, self.dilations = strides, dilations
        group_out = filters // group
        self.tile: Tile | None = None
        if not force_direct:
            self.tile = select_tile(type_, group, group_in, group_out, self.kernel)
        self._args = np.zeros((), CONV_ARGS)
        self._set(group_in=group_in, group_out=group_out)
        self._set(kernel_h=kernel[0], kernel_w=kernel[1])
        self._set(stride_h=strides[0], stride_w=strides[1])
        self._set(dilation_h=dilations[0], dilation_w=dilations[1])
        self._set(x_row=padded_channels(self.channels, type_))
        self._set(y_row=padded_channels(filters, type_))
        self._set(clip_min=clip[0], clip_max=clip[1])
        self._packed_bytes, self._packing = self._plan_packing(group_in, group_out)
        constants = {
            "scale": device.upload(_whole_quads(scale)),
            "bias": device.upload(_whole_quads(bias)),
            "pieces": device.upload(self._pieces()),
            "zeros": device.upload(np.zeros(_ZEROS, np.uint8)),
        }
        if not isinstance(weight, tuple):
            constants["weights"] = self.pack(device, weight)
        self._set(**{name: device.pointer(array) for name, array in constants.items()})
        self._constants = constants

    def pack(self, device: Device, weight: Any) -> Any:
        """Weights as a launch takes them, at the address that is its field ``weights``.

        Args:
            device: where.
            weight: as for the class, an array.
        """
        packed = device.empty((self._packed_bytes,), np.uint8)
        raw = device.upload(weight) if isinstance(weight, np.ndarray) else weight
        self._packing.run(device, weights=device.pointer(raw), packed=device.pointer(packed))
        return packed

    def product(self, pixels: int) -> Product[Tile]:
        """The matrix product for so many output pixels; there is a `tile`."""
        assert self.tile is not None
        columns = int(self._args["weight_row"]) // self.tile.filters * self.group
        turns = int(self._args["weight_words"]) // TURN
        return Product(self.type, self.tile, pixels, columns, turns)

    def launch(
        self,
        batch: int,
        in_size: _Pair,
        out_size: _Pair,
        pad_begin: _Pair,
        *,
        force_grid: tuple[Tile, int] | None = None,
    ) -> Launch:
        """The launch for one shape; its fields ``x``, ``y`` and ``z`` are addresses, 0 for no z.

        It depends on nothing but the layer, the shape and the device's multiprocessors.

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
        x_row = int(self._args["x_row"])
        reach = (max(in_size[0], spans[0]) * in_size[1] + spans[1]) * x_row
        # Pieces of 16 bytes are what the matrix product counts in, through all of the batch.
        far = (batch * in_size[0] * in_size[1] * x_row + reach) * np.dtype(self.type).itemsize // 16
        if max(pixels, reach, far if self.tile and self.tile.vector else 0) >= _MAX_SIZE:
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
            kernel = direct(self.type)
            blocks = min(-(-pixels * self.filters // kernel.threads), _MAX_DIRECT_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args, self._constants)
        product = self.product(pixels)
        tile, splits = force_grid or select_grid(product, self._multiprocessors)
        args["splits"] = splits
        scratch = 0
        if splits > 1:
            sums = product.blocks(tile) * splits * partial_bytes(self.type, tile)
            scratch = SCRATCH_ZEROS + sums
        columns = product.columns // self.group
        grid = (-(-pixels // tile.pixels), columns, self.group * splits)
        return Launch(gemm(self.type, tile), grid, args, self._constants, scratch)

    def _set(self, **fields: float) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _pieces(self) -> NDArray[np.int32]:
        """Where the pieces of the taps lie: rows of `Piece` in fetch.cuh, as words are packed.

        Behind the last piece come as many of no taps as fill the last turn and two stages
        beyond.
        """
        if self.tile is None or not self.tile.vector:
            return np.zeros((1, 4), np.int32)
        unit = PIECE_WORDS * taps_per_word(self.type)
        row = int(self._args["x_row"]) // unit
        channels = self.channels // self.group // unit
        h, w, c = np.indices((*self.kernel, channels)).reshape(3, -1)
        pieces = np.zeros(
            (int(self._args["weight_words"]) // PIECE_WORDS + _PIECES_AHEAD, 4), np.int64
        )
        pieces[: len(h), 0] = h * self.dilations[0]
        pieces[: len(h), 1] = w * self.dilations[1] * row + c
        pieces[: len(h), 2] = (1 << h) | (1 << 16 + w)
        pieces[len(h) :, 2] = 1 << 15  # of a row that no kernel has
        return pieces.astype(np.int32)

    def _plan_packing(self, group_in: int, group_out: int) -> tuple[int, Launch]:
        """The bytes of packed weights, and the launch; sets the fields that describe them."""
        positions = self.kernel[0] * self.kernel[1]
        args = np.zeros((), PACK_ARGS)
        if self.tile is None:
            # All filters side by side, by single taps: as one group, whatever the groups are.
            kernel = pack(self.type, words=False)
            group, filters, per_position = 1, self.filters, group_in
            words, row = positions * group_in, self.filters
        else:
            kernel = pack(self.type, words=True)
            group, filters = self.group, group_out
            per_position = -(-group_in // taps_per_word(self.type))
            words = -(-positions * per_position // TURN) * TURN
            row = -(-group_out // self.tile.filters) * self.tile.filters
            if not self.tile.vector:
                inverse, kernel_w_inverse = _inverse(per_position), _inverse(self.kernel[1])
                self._set(per_position=per_position, per_position_inverse=inverse)
                self._set(kernel_w_inverse=kernel_w_inverse)
        args["group"], args["group_in"], args["group_out"] = group, group_in, filters
        args["kernel_size"], args["words_per_position"] = positions, per_position
        args["weight_words"], args["weight_row"] = words, row
        args["tile_filters"] = row if self.tile is None else self.tile.filters
        self._set(weight_words=words, weight_row=row)
        word_bytes = 4 if self.tile is not None else np.dtype(self.type).itemsize
        blocks = min(-(-group * words * row // kernel.threads), _MAX_DIRECT_BLOCKS)
        return group * words * row * word_bytes, Launch(kernel, (blocks, 1, 1), args)


def _whole_quads(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """With as many zeros behind them as make whole quads, which is how the epilogue reads them."""
    return np.pad(np.asarray(values, np.float32), (0, -len(values) % 4))


def _inverse(divisor: int) -> int:
    """The factor that divide.cuh divides by ``divisor`` with."""
    return 0 if divisor == 1 else -(-(1 << 32) // divisor)
