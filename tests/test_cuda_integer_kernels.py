"""The integer CUDA kernels' sources, compiled for the CPU, against the definition, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch import integer_conv, layout
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.kernels.cuda.launch.selection import select_integer_tile
from adder_onnx.kernels.cuda.launch.variants import (
    INTEGER_FEW_PIXELS,
    INTEGER_GATHERED,
    INTEGER_GEMM_TILES,
    integer_gemm,
)
from tests.cuda_layers import run_integers
from tests.cuda_on_cpu.device import CpuDevice
from tests.integer_layers import QLayer, some_levels
from tests.layers import Layer, layers, make_layer

TARGETS = ("sm_90", "sm_120", "sm_120f")
"""Where differences are accumulated, dotted with ones, and made of twice the maxima."""


def assert_right(
    layer: QLayer, *, force_direct: bool = False, grid: int | None = None, **options: Any
) -> CpuDevice:
    device = CpuDevice(**options)
    y = run_integers(layer, device, force_direct=force_direct, grid=grid)
    np.testing.assert_array_equal(y, layer.expected())
    device.check_guards()
    return device


def test_any_shape() -> None:
    @settings(max_examples=200, deadline=None)
    @given(
        layer=layers(),
        seed=st.integers(0, 2**32 - 1),
        bits=st.integers(2, 8),
        force_direct=st.booleans(),
        grid=st.none() | st.integers(0, 1000),
        has_levels=st.booleans(),
        options=st.fixed_dictionaries(
            {
                "backwards": st.booleans(),
                "async_copies": st.booleans(),
                "multiprocessors": st.sampled_from([1, 8, 100]),
                "target": st.sampled_from(TARGETS),
            }
        ),
    )
    def check(
        layer: Layer,
        seed: int,
        bits: int,
        force_direct: bool,
        grid: int | None,
        has_levels: bool,
        options: dict[str, Any],
    ) -> None:
        levels = some_levels(np.random.default_rng(seed), bits) if has_levels else ()
        quantized = QLayer.like(layer, seed, bits, levels)
        assert_right(quantized, force_direct=force_direct, grid=grid, **options)

    check()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "attributes"),
    [
        (64, 64, (14, 14), (3, 3), {"pads": (1, 1, 1, 1)}),
        (128, 200, (7, 7), (1, 1), {"strides": (2, 2)}),
        (512, 64, (7, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 16, (32, 32), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 32, (32, 32), (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (96, 48, (9, 9), (5, 5), {"pads": (2, 2, 2, 2), "group": 3}),
        (32, 32, (9, 9), (3, 3), {"group": 32, "pads": (1, 1, 1, 1)}),
        (4, 8, (30, 30), (11, 11), {"strides": (4, 4), "pads": (5, 5, 5, 5)}),
        (33, 70, (5, 5), (2, 2), {}),
    ],
)
def test_shapes_of_real_networks(
    backwards: bool,
    channels: int,
    filters: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    attributes: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 2, channels, filters, size, kernel, **attributes)
    layer.z = np.zeros(layer.y_shape, np.float32)
    quantized = QLayer.like(layer, 1, 8)
    assert len(np.unique(quantized.expected())) > 20
    assert_right(quantized, backwards=backwards)


def test_the_largest_sums_are_exact() -> None:
    """All differences are 255, over 73,984 taps: more than float32 tells apart by one."""
    layer = make_layer(np.random.default_rng(0), 1, 256, 16, (17, 17), (17, 17))
    quantized = QLayer.like(layer, 0, 8)
    quantized.x[:] = 255
    quantized.w[:] = 0
    quantized.w[1, 0, 0, 0] = 1
    quantized.clip_min = -np.inf
    assert_right(quantized)


def test_halves_are_rounded_to_even() -> None:
    """Sums 0 … 40 of one tap, halved: every second quotient lies half way."""
    layer = make_layer(np.random.default_rng(0), 1, 16, 8, (1, 41), (1, 1))
    quantized = QLayer.like(layer, 0, 8)
    quantized.x[:] = 0
    quantized.x[0, 0, 0] = np.arange(41)
    quantized.w[:] = 0
    quantized.zero_points = (0, 0, 0)
    quantized.scales = (np.float32(0.5), np.float32(1), np.float32(1))
    quantized.scale[:], quantized.bias[:] = -1, 0
    y = run_integers(quantized, CpuDevice())
    np.testing.assert_array_equal(y[0, 0, 0], np.rint(np.arange(41) / 2))
    np.testing.assert_array_equal(y, quantized.expected())


ODD_SCALES = [0.1, 1.0, 3e-4, 7e12, 1e-25, 1e-44, 1e-38, 1e37, 3e38, 0.7370000481605530]
RANDOM_SCALES = np.exp2(np.random.default_rng(7).uniform(-149, 128, 40)).astype(np.float32)


@pytest.mark.parametrize("y_scale", [*ODD_SCALES, *RANDOM_SCALES.tolist()])
def test_quotients_on_both_sides_of_a_half(y_scale: float) -> None:
    """The float that is half way between two integers, and its neighbours, as biases of filters."""
    halves = (np.arange(-1, 257) + 0.5).astype(np.float32)
    quantized = QLayer.around(halves, y_scale, -np.inf)
    assert len(np.unique(quantized.expected())) > (200 if y_scale < 1e36 else 2)
    assert_right(quantized)


@pytest.mark.parametrize("y_scale", [*ODD_SCALES, *RANDOM_SCALES[:10].tolist()])
@pytest.mark.parametrize("levels", [(0, 3, 5, 6, 9, 200, 255), tuple(range(3, 19))])
@pytest.mark.parametrize("clip_min", [0.0, -np.inf])
def test_values_on_both_sides_of_a_border(
    y_scale: float, levels: tuple[int, ...], clip_min: float
) -> None:
    """The float in the middle of two levels, and its neighbours, as biases of filters."""
    borders = (np.asarray(levels[1:]) + levels[:-1]).astype(np.float32) / 2 - np.float32(3)
    quantized = QLayer.around(borders, y_scale, clip_min, levels)
    with np.errstate(over="ignore"):
        assert_right(quantized)


def test_what_is_not_a_number_becomes_the_least_integer() -> None:
    layer = make_layer(np.random.default_rng(0), 1, 8, 16, (3, 3), (1, 1))
    quantized = QLayer.like(layer, 0, 8)
    quantized.bias[:] = np.nan
    for clip_min, expected in ((-np.inf, 0), (0.0, quantized.zero_points[2])):
        quantized.clip_min = clip_min
        assert (run_integers(quantized, CpuDevice()) == expected).all()


@pytest.mark.parametrize("zero_point", [0, 7, 255])
@pytest.mark.parametrize("top", [255, 15])
def test_conversions_that_quantize(zero_point: int, top: int) -> None:
    """Float images of every size of a tile, with ties, values beyond both ends and NaN."""
    rng = np.random.default_rng(1)
    scale = np.float32(0.037)
    device = CpuDevice()
    for channels, size in ((1, (1, 1)), (3, (5, 7)), (16, (8, 8)), (21, (9, 9)), (64, (3, 30))):
        shape = (3, channels, *size)
        x = rng.uniform(-30 * scale, 1.3 * 256 * scale, shape).astype(np.float32)
        x.flat[::3] = np.rint(x.flat[::3] / scale) * scale + scale / 2
        x.flat[0] = np.nan
        x.flat[-1] = np.inf
        quantization = (float(scale), zero_point, top)
        row = layout.padded_channels(channels, "uint8")
        inside = device.empty((3, *size, row), np.uint8)
        source, q, y = device.upload(x), device.empty(shape, np.uint8), device.empty(shape, "f4")
        enter = layout.enter(shape, "float32", "uint8", quantization)
        enter.run(device, **{"from": device.pointer(source), "to": device.pointer(inside)})
        leave = layout.leave(shape, "uint8", "uint8")
        leave.run(device, **{"from": device.pointer(inside), "to": device.pointer(q)})
        leave = layout.leave(shape, "uint8", "float32", quantization)
        leave.run(device, **{"from": device.pointer(inside), "to": device.pointer(y)})
        expected = np.clip(np.rint(x / scale) + np.float32(zero_point), 0, top)
        expected.flat[0] = 0
        np.testing.assert_array_equal(q, expected.astype(np.uint8))
        exact = (expected.astype(np.float32) - np.float32(zero_point)) * scale
        np.testing.assert_array_equal(y, exact)
    device.check_guards()


@pytest.mark.parametrize("group", [1, 12])
def test_threads_that_compute_several_outputs(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """As where there are more outputs than a grid may have threads."""
    monkeypatch.setattr(integer_conv, "_MAX_DIRECT_BLOCKS", 3)
    attributes: dict[str, Any] = {"pads": (1, 1, 1, 1), "group": group}
    layer = make_layer(np.random.default_rng(6), 2, 24, 36, (9, 7), (3, 3), **attributes)
    device = assert_right(QLayer.like(layer, 0, 8), force_direct=True)
    assert max(grid[0] for grid in device.grids) == 3


def test_sums_of_more_than_32_bits_are_refused() -> None:
    weight = np.broadcast_to(np.uint8(1), (1, 1 << 20, 5, 4))
    epilogue = IntegerEpilogue(1.0, 0, 1.0, 0, 0.0, 8)
    ones = np.ones(1, np.float32)
    with pytest.raises(InputError, match="has more taps than the CUDA kernels"):
        integer_conv.IntegerAdderConv(
            CpuDevice(), weight, 0, ones, ones, epilogue, (1, 1), (1, 1), 1
        )


def test_what_32_bit_indices_cannot_reach_is_refused() -> None:
    weight = np.zeros((64, 64, 3, 3), np.uint8)
    epilogue = IntegerEpilogue(1.0, 0, 1.0, 0, 0.0, 8)
    ones = np.ones(64, np.float32)
    conv = integer_conv.IntegerAdderConv(
        CpuDevice(), weight, 0, ones, ones, epilogue, (1, 1), (1, 1), 1
    )
    conv.launch(1000, (1024, 1024), (1022, 1022), (0, 0))
    with pytest.raises(InputError, match="smaller batch"):
        conv.launch(3000, (1024, 1024), (1022, 1022), (0, 0))
    with pytest.raises(InputError, match="too large"):
        conv.launch(1, (8192, 8192), (8190, 8190), (0, 0))


def test_every_tile_is_reached() -> None:
    """By the shapes of real networks above, with and without shared sums."""
    reached = {
        select_integer_tile(group, channels // group, filters // group, kernel)
        for channels, filters, kernel, group in [
            (16, 16, (3, 3), 1),
            (16, 32, (3, 3), 1),
            (64, 64, (3, 3), 1),
            (33, 70, (2, 2), 1),
            (32, 32, (3, 3), 32),
        ]
    }
    assert reached == {*INTEGER_GEMM_TILES, INTEGER_GATHERED, None}
    assert select_integer_tile(1, 1 << 15, 64, (2, 4)) is None  # too many words to divide by
    layer = make_layer(np.random.default_rng(0), 1, 512, 64, (7, 7), (3, 3), pads=(1, 1, 1, 1))
    quantized = QLayer.like(layer, 1, 8)
    assert assert_right(quantized, multiprocessors=100).grids[-2][2] > 8
    alone, few = assert_right(quantized, grid=0), assert_right(quantized, grid=-1)
    assert alone.grids[-2] == (1, 1, 1)
    assert integer_gemm(INTEGER_FEW_PIXELS, "Fused").expression in few.launched
    assert few.grids[-2][2] > 8


@pytest.mark.parametrize("filling", [0, 7, 255])
@pytest.mark.parametrize("group", [1, 3])
def test_padding_channels_are_never_read(group: int, filling: int) -> None:
    """The bytes beyond the last channel, whatever they are, do not change the result."""
    attributes: dict[str, Any] = {"pads": (1, 1, 1, 1), "group": group}
    layer = make_layer(np.random.default_rng(5), 2, 21, 42, (4, 4), (3, 3), **attributes)
    quantized = QLayer.like(layer, 0, 8)
    y = run_integers(quantized, CpuDevice(), channel_padding=filling)
    np.testing.assert_array_equal(y, quantized.expected())
