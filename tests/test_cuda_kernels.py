"""The CUDA kernels' sources, compiled for the CPU, against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS
from adder_onnx.kernels.cuda.launch.selection import Product, grids, select_grid, select_tile
from adder_onnx.kernels.cuda.launch.variants import (
    ALL_TILES,
    FEW_PIXELS,
    GATHERED,
    GEMM_TILES,
    INTEGER_FEW_PIXELS,
    INTEGER_GATHERED,
    INTEGER_GEMM_TILES,
    KERNELS,
    TYPES,
    IntegerTile,
    Tile,
    gemm,
)
from adder_onnx.ops import ConvAttributes
from tests.cuda_layers import assert_right, run
from tests.cuda_on_cpu.device import CpuDevice
from tests.layers import Layer, layers, make_layer


@pytest.mark.parametrize("type_", TYPES)
def test_any_shape(type_: str) -> None:
    @settings(max_examples=120, deadline=None)
    @given(
        layer=layers(),
        backwards=st.booleans(),
        async_copies=st.booleans(),
        multiprocessors=st.sampled_from([1, 8, 132]),
        force_direct=st.booleans(),
        grid=st.none() | st.integers(0, 1000),
    )
    def check(
        layer: Layer,
        backwards: bool,
        async_copies: bool,
        multiprocessors: int,
        force_direct: bool,
        grid: int | None,
    ) -> None:
        device = CpuDevice(
            backwards=backwards, async_copies=async_copies, multiprocessors=multiprocessors
        )
        assert_right(layer, type_, device, force_direct=force_direct, grid=grid)
        device.check_guards()

    check()


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    ("backwards", "async_copies"), [(False, True), (True, True), (True, False)]
)
@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "attributes"),
    [
        (16, 16, (32, 32), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 32, (32, 32), (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (64, 64, (14, 14), (3, 3), {"pads": (1, 1, 1, 1)}),
        (64, 200, (7, 7), (1, 1), {"strides": (2, 2)}),
        (512, 64, (7, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
        (96, 48, (9, 9), (5, 5), {"pads": (2, 2, 2, 2), "group": 3}),
        (32, 32, (9, 9), (3, 3), {"group": 32}),
        (4, 8, (30, 30), (11, 11), {"strides": (4, 4), "pads": (5, 5, 5, 5)}),
        (16, 24, (20, 6), (3, 2), {"dilations": (3, 2), "pads": (4, 0, 1, 3)}),
        (33, 70, (5, 5), (2, 2), {}),
        (24, 36, (9, 9), (3, 3), {"group": 3}),  # quads of a group's filters end before a tile
        (16, 22, (9, 9), (3, 3), {}),  # and those of all before the padding of a row
    ],
)
def test_shapes_of_real_networks(
    type_: str,
    backwards: bool,
    async_copies: bool,
    channels: int,
    filters: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    attributes: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 2, channels, filters, size, kernel, **attributes)
    layer.z = rng.standard_normal(layer.y_shape).astype(np.float32)
    device = CpuDevice(backwards=backwards, async_copies=async_copies)
    assert_right(layer, type_, device)
    device.check_guards()


@pytest.mark.parametrize("type_", TYPES)
def test_every_kernel_is_tested(type_: str) -> None:
    """Shapes as above reach every tile."""
    rng = np.random.default_rng(2)
    device = CpuDevice()
    for channels, filters, grid in [(16, 16, 0), (16, 32, 0), (16, 64, 0), (16, 64, -1), (3, 8, 0)]:
        layer = make_layer(rng, 1, channels, filters, (7, 7), (2, 2))
        assert_right(layer, type_, device, grid=grid)
    reached = {name for name in device.launched if "adder_conv_gemm" in name}
    assert reached == {gemm(type_, tile).expression for tile in ALL_TILES}


@pytest.mark.parametrize(
    ("pixels", "columns", "turns", "expected"),
    [
        (64 * 56 * 56, 1, 18, (GEMM_TILES[0], 1)),  # a batch
        (7 * 7, 8, 144, (FEW_PIXELS, 16)),  # a warp for each scheduler
        (28 * 28, 8, 4, (GEMM_TILES[0], 2)),
        (0, 2, 36, (GEMM_TILES[0], 1)),
    ],
)
def test_tiles_and_splits(
    pixels: int, columns: int, turns: int, expected: tuple[Tile, int]
) -> None:
    """Of layers of ResNet-50 on an H100."""
    assert select_grid(Product("float32", GEMM_TILES[0], pixels, columns, turns), 132) == expected
    for tile in (GEMM_TILES[1], GATHERED):
        assert select_grid(Product("float32", tile, pixels, columns, turns), 132)[0] == tile


def test_grids_to_select_from() -> None:
    """No more splits than turns, 64, or twice the blocks that a GPU has at a time."""

    def most(tile: Tile | IntegerTile, blocks: int, turns: int) -> dict[Tile | IntegerTile, int]:
        type_ = "float32" if isinstance(tile, Tile) else "uint8"
        found = grids(Product(type_, tile, tile.pixels, blocks, turns), 132)
        return {t: max(splits for other, splits in found if other == t) for t, _ in found}

    assert most(GEMM_TILES[0], 1, 2) == {GEMM_TILES[0]: 2, FEW_PIXELS: 2}
    assert most(GEMM_TILES[0], 1, 100) == {GEMM_TILES[0]: 64, FEW_PIXELS: 64}
    assert most(GEMM_TILES[0], 66, 100) == {GEMM_TILES[0]: 12, FEW_PIXELS: 12}
    assert most(GEMM_TILES[0], 1000, 100) == {GEMM_TILES[0]: 1, FEW_PIXELS: 1}
    assert most(GEMM_TILES[1], 66, 100) == {GEMM_TILES[1]: 12}
    assert most(INTEGER_GEMM_TILES[0], 66, 100) == {
        INTEGER_GEMM_TILES[0]: 12,
        INTEGER_FEW_PIXELS: 12,
    }
    assert most(INTEGER_GATHERED, 66, 100) == {INTEGER_GATHERED: 12}
    many = Product("float32", GEMM_TILES[0], 64, SCRATCH_ZEROS // 4 + 1, 100)
    assert grids(many, 1500) == [(GEMM_TILES[0], 1), (FEW_PIXELS, 1)], "a counter for each tile"


def test_small_tiles_for_few_filters() -> None:
    for filters, expected in ((8, 16), (16, 16), (17, 32), (32, 32), (33, 64), (2048, 64)):
        tile = select_tile("float32", 1, 64, filters, (3, 3))
        assert tile is not None
        assert tile.filters == expected


def test_numbers_that_are_too_large_for_divisions_take_the_direct_kernel() -> None:
    assert select_tile("float32", 1, 8193, 64, (2, 4)) is None
    assert select_tile("float32", 1, 8191, 64, (2, 4)) == GATHERED
    assert select_tile("float16", 1, 8193, 64, (2, 4)) == GATHERED
    assert select_tile("float32", 1, 8192, 64, (2, 4)) == GEMM_TILES[0]  # by pieces


def test_what_is_not_whole_pieces_is_gathered() -> None:
    assert select_tile("float32", 3, 4, 8, (3, 3)) == GEMM_TILES[2]
    assert select_tile("float32", 3, 4, 10, (3, 3)) == GATHERED  # filters of a group neither
    assert select_tile("float32", 1, 4, 10, (3, 3)) == GEMM_TILES[2]
    assert select_tile("float32", 1, 6, 8, (3, 3)) == GATHERED
    assert select_tile("float16", 1, 4, 8, (3, 3)) == GATHERED
    assert select_tile("float16", 1, 8, 8, (15, 15)) == GEMM_TILES[2]
    assert select_tile("float16", 1, 8, 8, (1, 16)) == GATHERED  # no bit for that column


@pytest.mark.parametrize(("multiprocessors", "force_direct"), [(1, False), (132, False), (1, True)])
def test_sums_of_thousands_of_taps_stay_precise(multiprocessors: int, force_direct: bool) -> None:
    """Runs added up in float32 would be off by 5e-7 of the sum here."""
    rng = np.random.default_rng(3)
    w = rng.uniform(0.5, 1.5, (16, 2048, 3, 3)).astype(np.float32)
    x = np.zeros((1, 2048, 3, 3), np.float32)
    layer = Layer(x, w, ConvAttributes(), np.ones(16, np.float32), np.zeros(16, np.float32))
    # Batch normalisation takes away what all outputs have in common.
    layer.bias = -layer.expected().mean(axis=(0, 2, 3)).astype(np.float32)
    scale = float(w[0].sum())
    device = CpuDevice(multiprocessors=multiprocessors)
    y = run(layer, "float32", device, force_direct=force_direct)
    assert np.abs(y - layer.expected()).max() < 1e-7 * scale


@pytest.mark.parametrize("multiprocessors", [1, 132])
@pytest.mark.parametrize("force_direct", [False, True])
@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("channels", [1, 320])
def test_nan_and_infinity_pass_through(
    type_: str, channels: int, force_direct: bool, multiprocessors: int
) -> None:
    """In sums of one run and of many, and where blocks share them."""
    x = np.ones((1, channels, 1, 3), np.float32)
    x[0, channels // 3, 0] = np.nan, np.inf, 1
    w = np.ones((20, channels, 1, 1), np.float32)
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    device = CpuDevice(multiprocessors=multiprocessors)
    for clip in ((-np.inf, np.inf), (0.0, 6.0)):
        layer = Layer(x, w, ConvAttributes(), ones, zeros, clip=clip)
        y = run(layer, type_, device, force_direct=force_direct)
        assert np.isnan(y[..., 0]).all()
        assert (y[..., 1] == clip[0]).all()
        assert (y[..., 2] == 0).all()


@pytest.mark.parametrize("force_direct", [False, True])
def test_results_do_not_depend_on_the_batch(force_direct: bool) -> None:
    """Where sums are not split."""
    layer = make_layer(np.random.default_rng(1), 5, 33, 40, (13, 9), (3, 3), pads=(1, 1, 1, 1))
    device = CpuDevice()
    y = run(layer, "float32", device, force_direct=force_direct, grid=0)
    for n in range(5):
        one = Layer(layer.x[n : n + 1], layer.w, layer.a, layer.scale, layer.bias)
        np.testing.assert_array_equal(
            run(one, "float32", device, force_direct=force_direct, grid=0), y[n : n + 1]
        )


def test_results_do_not_depend_on_the_tile() -> None:
    """Where sums are not split."""
    layer = make_layer(np.random.default_rng(1), 2, 36, 40, (13, 9), (3, 3), pads=(1, 1, 1, 1))
    device = CpuDevice(multiprocessors=1)  # too few for splits of so many pixels
    many, few = (run(layer, "float32", device, grid=grid) for grid in (0, -1))
    assert {name for name in device.launched if "gemm" in name} == {
        gemm("float32", tile).expression for tile in (GEMM_TILES[0], FEW_PIXELS)
    }
    names = zip(device.launched, device.grids, strict=True)
    assert all(grid[2] == 1 for name, grid in names if "gemm" in name)
    np.testing.assert_array_equal(many, few)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("channels", [40, 33])
def test_split_sums(type_: str, channels: int) -> None:
    """A layer of few blocks, whose sums several of them share: right, and the same in any order."""
    rng = np.random.default_rng(7)
    layer = make_layer(rng, 1, channels * 2, 66, (9, 8), (3, 3), pads=(1, 1, 1, 1), group=2)
    layer.z = rng.standard_normal(layer.y_shape).astype(np.float32)
    results = []
    for backwards in (False, True):
        device = CpuDevice(backwards=backwards, multiprocessors=60)
        assert_right(layer, type_, device)
        results.append(run(layer, type_, device))
        grids = dict(zip(device.launched, device.grids, strict=True))
        ((_, _, deep),) = [grid for name, grid in grids.items() if "gemm" in name]
        assert deep >= 2 * 5, "of two groups, each five times"
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("from_", TYPES)
@pytest.mark.parametrize("to", TYPES)
@pytest.mark.parametrize("channels", [1, 3, 16, 33, 64])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16)])
def test_layout_conversions(from_: str, to: str, channels: int, size: tuple[int, int]) -> None:
    shape = (2, channels, *size)
    x = np.random.default_rng(4).standard_normal(shape).astype(from_)
    x.flat[0] = 65504
    device = CpuDevice()
    nhwc = device.empty((2, *size, layout.padded_channels(channels, to)), to)
    source = device.upload(x)
    addresses = {"from": device.pointer(source), "to": device.pointer(nhwc)}
    layout.enter(shape, from_, to).run(device, **addresses)
    np.testing.assert_array_equal(nhwc[..., :channels], x.transpose(0, 2, 3, 1).astype(to))
    assert (nhwc[..., channels:] == 0).all()
    back = device.empty(shape, from_)
    addresses = {"from": device.pointer(nhwc), "to": device.pointer(back)}
    layout.leave(shape, to, from_).run(device, **addresses)
    np.testing.assert_array_equal(back, x.astype(to).astype(from_))
    device.check_guards()


def test_padding_channels_are_never_read() -> None:
    """The output of one layer, NaN in its channel padding, is the input of the next."""
    layer = make_layer(np.random.default_rng(5), 1, 6, 8, (4, 4), (3, 3))
    device = CpuDevice()
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    unbounded = (-np.inf, np.inf)
    a = layer.a
    for type_ in TYPES:
        weight = layer.w.astype(type_)
        conv = AdderConv(
            device, weight, ones, zeros, unbounded, a.strides, a.dilations, a.group, type_
        )
        x = device.empty((1, 4, 4, layout.padded_channels(6, type_)), type_)
        assert np.isnan(x).all()
        x[..., :6] = layer.x.transpose(0, 2, 3, 1)
        y = device.empty((1, 2, 2, 8), type_)
        launch = conv.launch(1, (4, 4), (2, 2), (0, 0)).with_scratch(device)
        launch.run(device, x=device.pointer(x), y=device.pointer(y))
        assert np.isfinite(y).all()


def test_what_32_bit_indices_cannot_reach_is_refused() -> None:
    layer = make_layer(np.random.default_rng(6), 1, 64, 64, (3, 3), (3, 3))
    a = layer.a
    conv = AdderConv(
        CpuDevice(),
        layer.w,
        layer.scale,
        layer.bias,
        layer.clip,
        a.strides,
        a.dilations,
        a.group,
        "float32",
    )
    conv.launch(100, (1024, 1024), (1022, 1022), (0, 0))
    with pytest.raises(InputError, match="smaller batch"):
        conv.launch(3000, (1024, 1024), (1022, 1022), (0, 0))
    with pytest.raises(InputError, match="too large"):
        conv.launch(1, (8192, 8192), (8190, 8190), (0, 0))
    with pytest.raises(InputError, match=r"2\*\*31 elements"):
        layout.nhwc_size((1, 64, 8192, 8192), "float32")


def test_names_of_kernels_are_different() -> None:
    assert len({kernel.expression for kernel in KERNELS}) == len(KERNELS)
