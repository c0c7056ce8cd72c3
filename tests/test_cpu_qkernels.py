"""The native uint8 kernel, every instruction set that this machine has, against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adder_onnx.kernels.cpu import Program, QAdderConv, available_isas, padded_channels
from tests.integer_layers import QLayer, some_levels
from tests.layers import Layer, layers, make_layer

ALL_ISAS = ("scalar", "avx2", "avx512", "avx512_vbmi", "neon", "neon_dotprod")


@pytest.fixture(params=ALL_ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in available_isas():
        pytest.skip(f"this machine lacks {name}; it has {', '.join(available_isas())}")
    return name


def run(layer: QLayer, isa: str, threads: int, images: int = 0) -> NDArray[np.uint8]:
    """The layer's output by one instruction set; ``images`` of a pass, 0 for all."""
    x_zero, z_zero, y_zero = layer.zero_points
    x_scale, z_scale, y_scale = layer.scales
    a = layer.a
    conv = QAdderConv(
        layer.w,
        x_zero,
        x_scale * layer.scale,
        layer.bias,
        float(z_scale),
        z_zero,
        float(y_scale),
        y_zero,
        layer.clip_min,
        layer.bits,
        a.strides,
        a.dilations,
        a.group,
        isa,
        layer.levels,
    )
    y_shape = layer.y_shape
    batch = layer.x.shape[0]
    program = Program(batch, images or max(batch, 1))
    inputs = [layer.x]
    at, y_size = floats(layer.x.shape), floats(y_shape)
    program.add_nchw_to_nhwc(0, layer.x.shape, 0, "uint8", "uint8")  # type: ignore[arg-type]
    z_at = -1
    if layer.z is not None:
        z_at = at + y_size
        inputs.append(layer.z)
        program.add_nchw_to_nhwc(1, y_shape, z_at, "uint8", "uint8")
    top, left, _, _ = a.resolve_pads(layer.x.shape[2:], layer.w.shape[2:])
    program.add_qadder_conv(
        conv,
        layer.x.shape[0],
        layer.x.shape[2:],  # type: ignore[arg-type]
        y_shape[2:],
        (top, left),
        0,
        z_at,
        at,
    )
    program.add_nhwc_to_nchw(at, y_shape, 0, "uint8", "uint8")
    arena = np.full(program.arena_size(threads), np.nan, np.float32)
    y = np.full(y_shape, 0xAA, np.uint8)
    program.run(arena, inputs, [y], threads)
    return y


def floats(shape: tuple[int, ...]) -> int:
    n, c, h, w = shape
    return n * h * w * padded_channels(c) // 4


@pytest.mark.parametrize("isa", ALL_ISAS, indirect=True)
def test_any_shape(isa: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(
        layer=layers(),
        seed=st.integers(0, 2**32 - 1),
        bits=st.integers(2, 8),
        threads=st.integers(1, 4),
        passes=st.integers(0, 2),
        has_levels=st.booleans(),
    )
    def check(
        layer: Layer, seed: int, bits: int, threads: int, passes: int, has_levels: bool
    ) -> None:
        levels = some_levels(np.random.default_rng(seed), bits) if has_levels else ()
        quantized = QLayer.like(layer, seed, bits, levels)
        y = run(quantized, isa, threads, passes)
        np.testing.assert_array_equal(y, quantized.expected())

    check()


@pytest.mark.parametrize("isa", ALL_ISAS, indirect=True)
def test_one_filter_for_each_channel(isa: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(
        channels=st.integers(1, 70),
        kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        pads=st.tuples(*[st.integers(0, 3)] * 4),
        strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
        dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        residual=st.booleans(),
        bits=st.integers(2, 8),
        seed=st.integers(0, 2**32 - 1),
        threads=st.integers(1, 3),
        has_levels=st.booleans(),
    )
    def check(
        channels: int,
        kernel: tuple[int, int],
        pads: tuple[int, int, int, int],
        strides: tuple[int, int],
        dilations: tuple[int, int],
        residual: bool,
        bits: int,
        seed: int,
        threads: int,
        has_levels: bool,
    ) -> None:
        rng = np.random.default_rng(seed)
        attributes: dict[str, Any] = {
            "group": channels,
            "pads": pads,
            "strides": strides,
            "dilations": dilations,
        }
        layer = make_layer(rng, 2, channels, channels, (8, 9), kernel, **attributes)
        if residual:
            layer.z = rng.standard_normal(layer.y_shape).astype(np.float32)
        levels = some_levels(rng, bits) if has_levels else ()
        quantized = QLayer.like(layer, seed, bits, levels)
        np.testing.assert_array_equal(run(quantized, isa, threads), quantized.expected())

    check()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "attributes"),
    [
        (64, 64, (14, 14), (3, 3), {"pads": (1, 1, 1, 1)}),
        (128, 512, (7, 7), (1, 1), {"strides": (2, 2)}),
        (512, 64, (7, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 16, (32, 32), (3, 3), {"pads": (1, 1, 1, 1)}),
        (32, 21, (9, 9), (3, 3), {"pads": (1, 1, 1, 1)}),
        (192, 64, (5, 5), (3, 3), {"group": 2}),
        (48, 13, (7, 3), (1, 1), {}),
        (32, 32, (9, 9), (3, 3), {"group": 32}),
        (4, 8, (30, 30), (11, 11), {"strides": (4, 4), "pads": (5, 5, 5, 5)}),
    ],
)
def test_shapes_of_real_networks(
    isa: str,
    channels: int,
    filters: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    attributes: dict[str, Any],
) -> None:
    layer = make_layer(np.random.default_rng(0), 2, channels, filters, size, kernel, **attributes)
    quantized = QLayer.like(layer, 1, 8)
    expected = quantized.expected()
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(run(quantized, isa, 2), expected)


def test_the_largest_sums_are_exact(isa: str) -> None:
    """All differences are 255, over 73,984 taps: more than float32 tells apart by one."""
    layer = make_layer(np.random.default_rng(0), 1, 256, 2, (17, 17), (17, 17))
    quantized = QLayer.like(layer, 0, 8)
    quantized.x[:] = 255
    quantized.w[:] = 0
    quantized.w[1, 0, 0, 0] = 1
    quantized.clip_min = -np.inf
    np.testing.assert_array_equal(run(quantized, isa, 1), quantized.expected())


def test_arguments_are_checked() -> None:
    ones = np.ones(4, np.float32)
    w = np.ones((4, 2, 3, 3), np.uint8)

    def conv(
        weights: Any = w, zero_point: int = 0, bits: int = 8, factor: Any = ones, levels: Any = ()
    ) -> QAdderConv:
        isa = available_isas()[0]
        arguments = (weights, zero_point, factor, ones, 1.0, 0, 1.0, 0, 0.0, bits)
        return QAdderConv(*arguments, (1, 1), (1, 1), 1, isa, levels)

    with pytest.raises(ValueError, match="bits must be 2 to 8"):
        conv(bits=9)
    with pytest.raises(ValueError, match="zero point must be 0 to 255"):
        conv(zero_point=256)
    with pytest.raises(ValueError, match="one value per filter"):
        conv(factor=ones[:3])
    with pytest.raises(TypeError):
        conv(weights=w.astype(np.int8))
    for levels in ((1,), (1, 1), (2, 1), (0, 8), tuple(range(17))):
        with pytest.raises(ValueError, match="levels must be 2 to 16 integers that rise"):
            conv(bits=3 if len(levels) < 9 else 8, levels=levels)
    for levels in ((0, 256), (-1, 1)):
        with pytest.raises(TypeError):
            conv(levels=levels)
    program = Program(1, 1)
    with pytest.raises(ValueError, match="overlaps"):
        program.add_qadder_conv(conv(), 1, (8, 8), (6, 6), (0, 0), 0, -1, 16)
    program.add_nchw_to_nhwc(0, (1, 2, 3, 3), 0, "uint8", "uint8")
    arena = np.zeros(program.arena_size(1), np.float32)
    with pytest.raises(ValueError, match="wrong element type"):
        program.run(arena, [np.zeros((1, 2, 3, 3), np.float32)], [], 1)


def test_halves_are_rounded_to_even(isa: str) -> None:
    """Sums 0 … 40 of one tap, halved: every second quotient lies half way."""
    layer = make_layer(np.random.default_rng(0), 1, 16, 4, (1, 41), (1, 1))
    quantized = QLayer.like(layer, 0, 8)
    quantized.x[:] = 0
    quantized.x[0, 0, 0] = np.arange(41)
    quantized.w[:] = 0
    quantized.zero_points = (0, 0, 0)
    quantized.scales = (np.float32(0.5), np.float32(1), np.float32(1))
    quantized.scale[:], quantized.bias[:] = -1, 0
    y = run(quantized, isa, 1)
    np.testing.assert_array_equal(y[0, 0, 0], np.rint(np.arange(41) / 2))
    np.testing.assert_array_equal(y, quantized.expected())


@pytest.mark.parametrize("y_scale", [0.1, 1.0, 3e-4, 7e12, 1e-25, 1e-44, 1e37, 0.7370000481605530])
def test_quotients_on_both_sides_of_a_half(isa: str, y_scale: float) -> None:
    """The float that is half way between two integers, and its neighbours, as biases of filters."""
    halves = (np.arange(-1, 257) + 0.5).astype(np.float32)
    quantized = QLayer.around(halves, y_scale, -np.inf)
    expected = quantized.expected()
    assert len(np.unique(expected)) > (200 if y_scale < 1e36 else 20)
    np.testing.assert_array_equal(run(quantized, isa, 1), expected)


@pytest.mark.parametrize("y_scale", [0.1, 1.0, 3e-4, 7e12, 1e-25, 1e-44, 1e37, 0.7370000481605530])
@pytest.mark.parametrize("levels", [(0, 1), (0, 3, 5, 6, 9, 200, 255), tuple(range(3, 19))])
@pytest.mark.parametrize("clip_min", [0.0, -np.inf, 1e36])
def test_values_on_both_sides_of_a_border(
    isa: str, y_scale: float, levels: tuple[int, ...], clip_min: float
) -> None:
    """The float in the middle of two levels, and its neighbours, as biases of filters."""
    borders = (np.asarray(levels[1:]) + levels[:-1]).astype(np.float32) / 2 - np.float32(3)
    quantized = QLayer.around(borders, y_scale, clip_min, levels)
    with np.errstate(over="ignore"):
        expected = quantized.expected()
    assert set(np.unique(expected)) == set(levels) or clip_min > -np.inf or y_scale > 1e36
    np.testing.assert_array_equal(run(quantized, isa, 1), expected)


def test_what_is_not_a_number_becomes_the_least_integer(isa: str) -> None:
    layer = make_layer(np.random.default_rng(0), 1, 8, 16, (3, 3), (1, 1))
    quantized = QLayer.like(layer, 0, 8)
    quantized.bias[:] = np.nan
    quantized.clip_min = -np.inf
    assert (run(quantized, isa, 1) == 0).all()


@pytest.mark.parametrize("zero_point", [0, 7, 255])
@pytest.mark.parametrize("top", [255, 15])
def test_conversions_that_quantize(zero_point: int, top: int) -> None:
    """Float images of every size of a tile, with ties, values beyond both ends and NaN."""
    rng = np.random.default_rng(1)
    scale = np.float32(0.037)
    for channels, size in ((1, (1, 1)), (3, (5, 7)), (16, (8, 8)), (21, (9, 9)), (64, (3, 30))):
        shape = (3, channels, *size)
        x = rng.uniform(-30 * scale, 1.3 * 256 * scale, shape).astype(np.float32)
        x.flat[::3] = np.rint(x.flat[::3] / scale) * scale + scale / 2
        x.flat[0] = np.nan
        x.flat[-1] = np.inf
        quantization = (float(scale), zero_point, top)
        program = Program(3, 2)
        program.add_nchw_to_nhwc(0, shape, 0, "float32", "uint8", quantization)
        program.add_nhwc_to_nchw(0, shape, 0, "uint8", "uint8")
        program.add_nhwc_to_nchw(0, shape, 1, "float32", "uint8", quantization)
        arena = np.full(program.arena_size(2), np.nan, np.float32)
        q, y = np.full(shape, 0xAA, np.uint8), np.full(shape, np.nan, np.float32)
        program.run(arena, [x], [q, y], 2)
        expected = np.clip(np.rint(x / scale) + np.float32(zero_point), 0, top)
        expected.flat[0] = 0
        np.testing.assert_array_equal(q, expected.astype(np.uint8))
        exact = (expected.astype(np.float32) - np.float32(zero_point)) * scale
        np.testing.assert_array_equal(y, exact)
