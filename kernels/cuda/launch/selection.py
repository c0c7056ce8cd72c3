"""Which kernel an adder convolution runs in: the one place where that is decided."""

from __future__ import annotations

from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS
from adder_onnx.kernels.cuda.launch.variants import (
    CHUNK_WORDS,
    GATHERED,
    GEMM_TILES,
    Tile,
    taps_per_word,
)

__all__ = ["select_splits", "select_tile"]

_FEW_FILTERS = 8
"""Below, most of a tile of the matrix product would be empty, and `direct` is the better kernel."""

_MAX_NUMBER = 1 << 16
"""Of words and kernel positions: what divide.cuh can divide."""

_MAX_BLOCKS = 65535
"""Of a grid's second and third dimension."""

_MAX_SPLIT_TILES = SCRATCH_ZEROS // 4
"""Tiles whose sums several blocks may share: each has a counter (kMaxSplitTiles in split.cuh)."""

_MAX_SPLITS = 64
_COMBINING = 0.25
"""What reading the sums of one block takes, in turns of the loop over taps: a judgement."""


def select_splits(blocks: int, turns: int, multiprocessors: int) -> int:
    """How many blocks share the sums of a tile, each with some of the turns over its taps.

    That for which the busiest multiprocessor has least to do, what combining the sums costs
    included; 1 where blocks are enough without.

    Args:
        blocks: of the layer, without splits.
        turns: of the loop over taps in each of them.
        multiprocessors: of the GPU.
    """
    if not 0 < blocks < min(2 * multiprocessors, _MAX_SPLIT_TILES + 1):
        return 1

    def cost(splits: int) -> float:
        busiest = -(-blocks * splits // multiprocessors)
        combining = _COMBINING * splits if splits > 1 else 0
        return busiest * -(-turns // splits) + combining

    most = min(turns, _MAX_SPLITS, _MAX_BLOCKS // blocks)
    return min(range(1, most + 1), key=cost)


def select_tile(
    type_: str, group: int, group_in: int, group_out: int, kernel: tuple[int, int]
) -> Tile | None:
    """The tile of the matrix product, or None for one thread per output.

    Args:
        type_: ``float32`` or ``float16``.
        group: number of groups.
        group_in: input channels of a group.
        group_out: filters of a group.
        kernel: its height and width.
    """
    taps = taps_per_word(type_)
    words = -(-group_in // taps) * kernel[0] * kernel[1]
    if group_out < _FEW_FILTERS or words >= _MAX_NUMBER or group > _MAX_BLOCKS:
        return None
    if group_in % (CHUNK_WORDS * taps):
        return GATHERED
    # The smallest tile that takes all filters; the largest where none does.
    fitting = [tile for tile in GEMM_TILES if tile.filters >= group_out]
    return fitting[-1] if fitting else GEMM_TILES[0]
