"""Which kernels a layer may need, before its weights or the images are there."""

from __future__ import annotations

from adder_onnx.kernels.cuda.launch.selection import (
    select_distances,
    select_integer_tile,
    select_tile,
)
from adder_onnx.kernels.cuda.launch.variants import (
    FEW_PIXELS,
    GATHERED,
    GEMM_TILES,
    INTEGER_FEW_PIXELS,
    INTEGER_GEMM_TILES,
    Kernel,
    Tile,
    direct,
    gemm,
    integer_direct,
    integer_gemm,
    integer_pack,
    pack,
)

__all__ = ["conv_kernels", "integer_conv_kernels"]

_SOME_CHANNELS = 64
"""Of a group, such that they are fetched by chunks."""


def conv_kernels(
    type_: str,
    group: int,
    group_in: int | None,
    group_out: int,
    kernel: tuple[int, int] | None,
) -> set[Kernel]:
    """The kernels that a layer may launch for images of any size, packing included.

    Args:
        type_: ``float32`` or ``float16``.
        group: number of groups.
        group_in: input channels of a group; None where the weight, which tells, is not yet there.
        group_out: filters of a group.
        kernel: its height and width; None as for ``group_in``.
    """
    tiles: set[Tile | None]
    if group_in is None or kernel is None:
        fast = select_tile(type_, group, _SOME_CHANNELS, group_out, (1, 1))
        tiles = {fast, GATHERED, None} if fast else {None}
    else:
        tiles = {select_tile(type_, group, group_in, group_out, kernel)}
    if GEMM_TILES[0] in tiles:
        tiles.add(FEW_PIXELS)
    found = set()
    for tile in tiles:
        found.add(pack(type_, words=tile is not None))
        found.add(direct(type_) if tile is None else gemm(type_, tile))
    return found


def integer_conv_kernels(
    target: str, group: int, group_in: int, group_out: int, kernel: tuple[int, int]
) -> set[Kernel]:
    """The kernels that an `IntegerAdderConv`, whose weight is constant, may launch.

    Args:
        target: what kernels are compiled for, for example ``sm_90``.
        group: number of groups.
        group_in: input channels of a group.
        group_out: filters of a group.
        kernel: its height and width.
    """
    tile = select_integer_tile(group, group_in, group_out, kernel)
    if tile is None:
        return {integer_pack(words=False), integer_direct()}
    tiles = {tile, INTEGER_FEW_PIXELS} if tile == INTEGER_GEMM_TILES[0] else {tile}
    distances = select_distances(target)
    return {integer_pack(words=True), *(integer_gemm(t, distances) for t in tiles)}
