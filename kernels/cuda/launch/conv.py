"""One adder convolution with its constants on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Device, Launch
from adder_onnx.kernels.cuda.launch.geometry import Geometry, Pair, check_counts, with_sizes
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

_MAX_DIRECT_BLOCKS = 1 << 20
_ZEROS = 32
_PIECES_AHEAD = 2 * 4


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
        strides: Pair,
        dilations: Pair,
        group: int,
        type_: str,
        *,
        force_direct: bool = False,
    ) -> None:
        shape = weight if isinstance(weight, tuple) else weight.shape
        self.geometry = g = Geometry(shape, strides, dilations, group, type_)
        self._multiprocessors = device.multiprocessors
        self.tile: Tile | None = None
        if not force_direct:
            self.tile = select_tile(type_, group, g.group_in, g.group_out, g.kernel)
        self._args = g.args(CONV_ARGS)
        self._set(clip_min=clip[0], clip_max=clip[1])
        self._packed_bytes, self._packing = self._plan_packing()
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
        g = self.geometry
        columns = int(self._args["weight_row"]) // self.tile.filters * g.group
        turns = int(self._args["weight_words"]) // TURN
        return Product(g.type, self.tile, pixels, columns, turns)

    def launch(
        self,
        batch: int,
        in_size: Pair,
        out_size: Pair,
        pad_begin: Pair,
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
        g = self.geometry
        pixels = batch * out_size[0] * out_size[1]
        reach = g.reach(in_size)
        # Pieces of 16 bytes are what the matrix product counts in, through all of the batch.
        elements = batch * in_size[0] * in_size[1] * g.x_row + reach
        far = elements * np.dtype(g.type).itemsize // 16 if self.tile and self.tile.vector else 0
        images = f"{batch} images of {list(in_size)} with {g.channels} channels"
        check_counts(images, pixels, reach, far)
        args = with_sizes(self._args, in_size, out_size, pad_begin)
        args["pixels"] = pixels
        if self.tile is None:
            kernel = direct(g.type)
            blocks = min(-(-pixels * g.filters // kernel.threads), _MAX_DIRECT_BLOCKS)
            return Launch(kernel, (blocks, 1, 1), args, self._constants)
        product = self.product(pixels)
        tile, splits = force_grid or select_grid(product, self._multiprocessors)
        args["splits"] = splits
        scratch = 0
        if splits > 1:
            sums = product.blocks(tile) * splits * partial_bytes(g.type, tile)
            scratch = SCRATCH_ZEROS + sums
        columns = product.columns // g.group
        grid = (-(-pixels // tile.pixels), columns, g.group * splits)
        return Launch(gemm(g.type, tile), grid, args, self._constants, scratch)

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
        g = self.geometry
        unit = PIECE_WORDS * taps_per_word(g.type)
        row = g.x_row // unit
        h, w, c = np.indices((*g.kernel, g.group_in // unit)).reshape(3, -1)
        pieces = np.zeros(
            (int(self._args["weight_words"]) // PIECE_WORDS + _PIECES_AHEAD, 4), np.int64
        )
        pieces[: len(h), 0] = h * g.dilations[0]
        pieces[: len(h), 1] = w * g.dilations[1] * row + c
        pieces[: len(h), 2] = (1 << h) | (1 << 16 + w)
        pieces[len(h) :, 2] = 1 << 15  # of a row that no kernel has
        return pieces.astype(np.int32)

    def _plan_packing(self) -> tuple[int, Launch]:
        """The bytes of packed weights, and the launch; sets the fields that describe them."""
        g = self.geometry
        positions = g.kernel[0] * g.kernel[1]
        args = np.zeros((), PACK_ARGS)
        if self.tile is None:
            # All filters side by side, by single taps: as one group, whatever the groups are.
            kernel = pack(g.type, words=False)
            group, group_out, per_position = 1, g.filters, g.group_in
            words, row = positions * g.group_in, g.filters
        else:
            kernel = pack(g.type, words=True)
            group, group_out = g.group, g.group_out
            per_position = -(-g.group_in // taps_per_word(g.type))
            words = -(-positions * per_position // TURN) * TURN
            row = -(-group_out // self.tile.filters) * self.tile.filters
            if not self.tile.vector:
                inverse, kernel_w_inverse = _inverse(per_position), _inverse(g.kernel[1])
                self._set(per_position=per_position, per_position_inverse=inverse)
                self._set(kernel_w_inverse=kernel_w_inverse)
        args["group"], args["group_in"], args["group_out"] = group, g.group_in, group_out
        args["kernel_size"], args["words_per_position"] = positions, per_position
        args["weight_words"], args["weight_row"] = words, row
        args["tile_filters"] = row if self.tile is None else self.tile.filters
        self._set(weight_words=words, weight_row=row)
        word_bytes = 4 if self.tile is not None else np.dtype(g.type).itemsize
        blocks = min(-(-group * words * row // kernel.threads), _MAX_DIRECT_BLOCKS)
        return group * words * row * word_bytes, Launch(kernel, (blocks, 1, 1), args)


def _whole_quads(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """With as many zeros behind them as make whole quads, which is how the epilogue reads them."""
    return np.pad(np.asarray(values, np.float32), (0, -len(values) % 4))


def _inverse(divisor: int) -> int:
    """The factor that divide.cuh divides by ``divisor`` with."""
    return 0 if divisor == 1 else -(-(1 << 32) // divisor)
