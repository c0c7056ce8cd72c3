"""Which kernel an adder convolution runs in: the one place where that is decided."""

from __future__ import annotations

from adder_onnx.kernels.cuda.launch.variants import (
    CHUNK_WORDS,
    GATHERED,
    GEMM_TILES,
    GRADIENT_TILES,
    GradientTile,
    Tile,
    taps_per_word,
)

__all__ = ["select_gradient_tile", "select_tile"]

_FEW_FILTERS = 8
"""Below, most of a tile of the matrix product would be empty, and `direct` is the better kernel."""

_FEW_CHANNELS = 8
"""The same of the input gradient's matrix product."""

_MAX_NUMBER = 1 << 16
"""Of words and kernel positions: what divide.cuh can divide."""

_MAX_BLOCKS = 65535
"""Of a grid's second and third dimension."""


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


def select_gradient_tile(group: int, group_in: int, group_out: int) -> GradientTile | None:
    """The tile of the input gradient's matrix product, or None for one thread per element.

    Args:
        group: number of groups.
        group_in: input channels of a group.
        group_out: filters of a group.
    """
    # What is fetched is four channels or filters, which belong to one group.
    is_aligned = group == 1 or (group_in % 4 == 0 and group_out % 4 == 0)
    if group_in < _FEW_CHANNELS or not is_aligned or group > _MAX_BLOCKS:
        return None
    fitting = [tile for tile in GRADIENT_TILES if tile.channels >= group_in]
    return fitting[-1] if fitting else GRADIENT_TILES[0]
