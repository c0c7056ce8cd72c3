"""Which kernel an adder convolution runs in: the one place where that is decided."""

from __future__ import annotations

from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS
from adder_onnx.kernels.cuda.launch.variants import (
    DISTANCES,
    FEW_PIXELS,
    GATHERED,
    GEMM_TILES,
    GRADIENT_TILES,
    INTEGER_CHUNK_TAPS,
    INTEGER_GATHERED,
    INTEGER_GEMM_TILES,
    KERNELS,
    PIECE_WORDS,
    GradientTile,
    IntegerTile,
    Kernel,
    Tile,
    taps_per_word,
)

__all__ = [
    "kernels_on",
    "runs_on",
    "select_distances",
    "select_gradient_tile",
    "select_grid",
    "select_integer_tile",
    "select_splits",
    "select_tile",
]

_FEW_FILTERS = 8
"""Below, most of a tile of the matrix product would be empty, and `direct` is the better kernel."""

_FEW_CHANNELS = 8
"""The same of the input gradient's matrix product."""

_MAX_NUMBER = 1 << 16
"""Of words that are looked up one by one: what divide.cuh can divide."""

_MAX_KERNEL = 15
"""Rows and columns of a kernel whose taps are fetched by pieces: each has a bit (fetch.cuh)."""

_MAX_BLOCKS = 65535
"""Of a grid's second and third dimension."""

_MAX_SPLIT_TILES = SCRATCH_ZEROS // 4
"""Tiles whose sums several blocks may share: each has a counter (kMaxSplitTiles in split.cuh)."""

_MAX_SPLITS = 64

_COMBINING = 0.25
"""What reading the sums of one block takes, in turns of the loop over taps: a judgement."""

_SMALL = 0.55
"""What a turn takes in a tile of half the pixels: more than half, since each weight is fetched for
fewer of them. A judgement."""


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
    most = min(turns, _MAX_SPLITS, _MAX_BLOCKS // blocks)
    return min(range(1, most + 1), key=lambda s: _busiest(blocks, turns, multiprocessors, s))


def _busiest(blocks: int, turns: int, multiprocessors: int, splits: int) -> float:
    """What the multiprocessor with most to do does, in turns."""
    combining = _COMBINING * splits if splits > 1 else 0
    return -(-blocks * splits // multiprocessors) * -(-turns // splits) + combining


def select_grid(
    tile: Tile, pixels: int, columns: int, turns: int, multiprocessors: int
) -> tuple[Tile, int]:
    """The tile for so many pixels, and the splits of its sums.

    Args:
        tile: what `select_tile` says.
        pixels: of the output.
        columns: tiles side by side along the filters, in all groups.
        turns: of the loop over taps.
        multiprocessors: of the GPU.
    """

    def choice(candidate: Tile) -> tuple[float, Tile, int]:
        blocks = -(-pixels // candidate.pixels) * columns
        splits = select_splits(blocks, turns, multiprocessors)
        cost = _busiest(blocks, turns, multiprocessors, splits)
        return cost * (1 if candidate == tile else _SMALL), candidate, splits

    candidates = [tile, FEW_PIXELS] if tile == GEMM_TILES[0] else [tile]
    _, chosen, splits = min(map(choice, candidates), key=lambda choice: choice[0])
    return chosen, splits


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
    if group_out < _FEW_FILTERS or group > _MAX_BLOCKS:
        return None
    pieces = group_in % (PIECE_WORDS * taps) == 0 and max(kernel) <= _MAX_KERNEL
    if not pieces or (group > 1 and group_out % 4):
        words = -(-group_in // taps) * kernel[0] * kernel[1]
        return GATHERED if words < _MAX_NUMBER else None
    # The smallest tile that takes all filters; the largest where none does.
    fitting = [tile for tile in GEMM_TILES if tile.filters >= group_out]
    return fitting[-1] if fitting else GEMM_TILES[0]


def select_integer_tile(
    group: int, group_in: int, group_out: int, kernel: tuple[int, int]
) -> IntegerTile | None:
    """The tile of the integer matrix product, or None for one thread per output.

    Args:
        group: number of groups.
        group_in: input channels of a group.
        group_out: filters of a group.
        kernel: its height and width.
    """
    words = -(-group_in // 4) * kernel[0] * kernel[1]
    if group_out < _FEW_FILTERS or words >= _MAX_NUMBER or group > _MAX_BLOCKS:
        return None
    if group_in % INTEGER_CHUNK_TAPS:
        return INTEGER_GATHERED
    fitting = [tile for tile in INTEGER_GEMM_TILES if tile.filters >= group_out]
    return fitting[-1] if fitting else INTEGER_GEMM_TILES[0]


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


_WITHOUT_FUSED = (107, 120, 121)
"""Compute capabilities, times ten, where the instruction that adds up absolute differences is made
of five others."""


def select_distances(target: str) -> str:
    """How absolute differences of integers are added up: one of `DISTANCES`.

    By the number of instructions for four taps. Whether they run at full rate is for a measurement
    to say (`adder_onnx.kernels.cuda.bound`): were the first to run at a quarter of it on a GPU, the
    second would win there.

    Args:
        target: what kernels are compiled for: ``sm_90``, or ``sm_120f`` for a family.
    """
    fused, dotted, doubled = DISTANCES
    if target.endswith("f"):
        return doubled
    return dotted if int(target[3:]) in _WITHOUT_FUSED else fused


def runs_on(distances: str, target: str) -> bool:
    """Whether one of `DISTANCES` can be compiled for a target."""
    return distances != DISTANCES[2] or target.endswith("f")


def kernels_on(target: str) -> tuple[Kernel, ...]:
    """All kernels that layers may run in where kernels are compiled for this target."""
    others = {f"<{name}," for name in DISTANCES} - {f"<{select_distances(target)},"}
    return tuple(k for k in KERNELS if not any(name in k.expression for name in others))
