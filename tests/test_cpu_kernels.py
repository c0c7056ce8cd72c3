"""The native kernels, every instruction set that this machine has, against the definition."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cpu import (
    ISA_VARIABLE,
    AdderConv,
    Program,
    available_isas,
    padded_channels,
    select_isa,
)
from adder_onnx.ops import ConvAttributes
from tests.layers import Layer, layers, make_layer

ALL_ISAS = ("scalar", "avx2", "avx512", "avx512_vbmi", "neon", "neon_dotprod")
# Of docs/precision.md: additions of a sum, in fast arithmetic of two maxima and an x.
ROUNDINGS = {"exact": 32, "fast": 80}


@pytest.fixture(params=ALL_ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in available_isas():
        pytest.skip(f"this machine lacks {name}; it has {', '.join(available_isas())}")
    return name


@pytest.fixture(params=("exact", "fast"))
def arithmetic(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(layer: Layer, isa: str, threads: int, arithmetic: str = "fast") -> NDArray[np.float32]:
    conv = AdderConv(
        layer.w,
        layer.scale,
        layer.bias,
        *layer.clip,
        layer.a.strides,
        layer.a.dilations,
        layer.a.group,
        isa,
        arithmetic,
    )
    batch = layer.x.shape[0]
    program = Program(batch, max(batch, 1))
    x_size, y_size = nhwc_size(layer.x.shape), nhwc_size(layer.y_shape)
    inputs = [layer.x]
    program.add_nchw_to_nhwc(0, layer.x.shape, 0, "float32", "float32")  # type: ignore[arg-type]
    z_at = -1
    if layer.z is not None:
        z_at = x_size + y_size
        inputs.append(layer.z)
        program.add_nchw_to_nhwc(1, layer.y_shape, z_at, "float32", "float32")
    top, left, _, _ = layer.a.resolve_pads(layer.x.shape[2:], layer.w.shape[2:])
    program.add_adder_conv(
        conv,
        layer.x.shape[0],
        layer.x.shape[2:],  # type: ignore[arg-type]
        layer.y_shape[2:],
        (top, left),
        0,
        z_at,
        x_size,
    )
    program.add_nhwc_to_nchw(x_size, layer.y_shape, 0, "float32", "float32")
    # Whatever is read without having been written shows up as NaN.
    arena = np.full(program.arena_size(threads), np.nan, np.float32)
    y = np.full(layer.y_shape, np.nan, np.float32)
    program.run(arena, inputs, [y], threads)
    return y


def nhwc_size(shape: tuple[int, ...]) -> int:
    n, c, h, w = shape
    return n * h * w * padded_channels(c)


def assert_close(y: NDArray[Any], layer: Layer, arithmetic: str) -> None:
    error = np.abs(y - layer.expected())
    assert y.shape == error.shape
    assert (error <= layer.tolerance(ROUNDINGS[arithmetic])).all(), error.max()


@pytest.mark.parametrize("isa", ALL_ISAS, indirect=True)
def test_any_shape(isa: str, arithmetic: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(layer=layers(), threads=st.integers(1, 4))
    def check(layer: Layer, threads: int) -> None:
        assert_close(run(layer, isa, threads, arithmetic), layer, arithmetic)

    check()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "attributes"),
    [
        (64, 64, (14, 14), (3, 3), {"pads": (1, 1, 1, 1)}),
        (128, 512, (7, 7), (1, 1), {"strides": (2, 2)}),
        (512, 64, (7, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 16, (32, 32), (3, 3), {"pads": (1, 1, 1, 1)}),
        (32, 32, (9, 9), (3, 3), {"group": 32}),
        (100, 100, (14, 14), (7, 7), {"group": 100, "pads": (3, 3, 3, 3)}),
        (4, 8, (30, 30), (11, 11), {"strides": (4, 4), "pads": (5, 5, 5, 5)}),
    ],
)
def test_shapes_of_real_networks(
    isa: str,
    arithmetic: str,
    channels: int,
    filters: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    attributes: dict[str, Any],
) -> None:
    layer = make_layer(np.random.default_rng(0), 2, channels, filters, size, kernel, **attributes)
    assert_close(run(layer, isa, 2, arithmetic), layer, arithmetic)


def test_results_do_not_depend_on_threads_or_batch(isa: str, arithmetic: str) -> None:
    layer = make_layer(np.random.default_rng(1), 5, 33, 40, (13, 9), (3, 3), pads=(1, 1, 1, 1))
    layer.x[2, 5, 6, 4] = np.inf  # some pixels in exact arithmetic, among others that are not
    y = run(layer, isa, 1, arithmetic)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(run(layer, isa, threads, arithmetic), y)
    for n in range(5):
        one = Layer(layer.x[n : n + 1], layer.w, layer.a, layer.scale, layer.bias)
        np.testing.assert_array_equal(run(one, isa, 2, arithmetic), y[n : n + 1])


@pytest.mark.parametrize(("filters", "group"), [(50, 1), (70, 70), (140, 70)])
def test_results_do_not_depend_on_the_instruction_set(
    arithmetic: str, filters: int, group: int
) -> None:
    layer = make_layer(
        np.random.default_rng(2), 2, 70, filters, (8, 8), (5, 5), pads=(2, 2, 2, 2), group=group
    )
    first, *others = [run(layer, name, 1, arithmetic) for name in available_isas()]
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_sums_of_thousands_of_taps_stay_precise(isa: str, arithmetic: str) -> None:
    """A single float32 accumulator would be off by about 1e-5 of the sum here."""
    rng = np.random.default_rng(3)
    w = rng.uniform(0.5, 1.5, (16, 512, 3, 3)).astype(np.float32)
    x = np.zeros((1, 512, 3, 3), np.float32)
    layer = Layer(x, w, ConvAttributes(), np.ones(16, np.float32), np.zeros(16, np.float32))
    error = np.abs(run(layer, isa, 1, arithmetic) / layer.expected() - 1)
    assert error.max() < 1e-6


def test_padding_costs_the_weight(isa: str, arithmetic: str) -> None:
    w = np.full((1, 1, 3, 3), 2, np.float32)
    x = np.full((1, 1, 1, 1), 5, np.float32)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    layer = Layer(x, w, ConvAttributes(pads=(1, 1, 1, 1)), one, zero)
    assert run(layer, isa, 1, arithmetic).item() == -(8 * 2 + 3)


def test_nan_and_infinity_pass_through(isa: str, arithmetic: str) -> None:
    x = np.array([np.nan, np.inf, 1], np.float32).reshape(1, 1, 1, 3)
    w = np.ones((20, 1, 1, 1), np.float32)
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    for clip in ((-np.inf, np.inf), (0.0, 6.0)):
        y = run(Layer(x, w, ConvAttributes(), ones, zeros, clip=clip), isa, 1, arithmetic)
        assert np.isnan(y[..., 0]).all()
        assert (y[..., 1] == clip[0]).all()
        assert (y[..., 2] == 0).all()


@pytest.mark.parametrize("size", [1e-42, 1.0, 1e6, 1e30])
def test_pixels_that_are_nearly_the_filter(isa: str, arithmetic: str, size: float) -> None:
    """The cancellation of the fast form: its error is one of the pixel, not of the distance."""
    rng = np.random.default_rng(5)
    w = (rng.uniform(0.5, 1, (20, 32, 3, 3)) * size).astype(np.float32)
    x = np.nextafter(w[3:4], np.float32(np.inf))
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    layer = Layer(x, w, ConvAttributes(), ones, zeros)
    y = run(layer, isa, 1, arithmetic)
    # Below the normal numbers, the result itself has the roundings of the smallest one.
    error = np.abs(y - layer.expected())
    assert (error <= layer.tolerance(ROUNDINGS[arithmetic]) + 1e-45).all()
    if arithmetic == "exact":
        assert error[0, 3] <= 1e-5 * -layer.expected()[0, 3]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 2.0**101, -(2.0**127)])
def test_extreme_weights_are_summed_in_exact_arithmetic(isa: str, value: float) -> None:
    rng = np.random.default_rng(6)
    w = rng.standard_normal((5, 4, 1, 1)).astype(np.float32)
    w[2, 1] = value
    x = rng.standard_normal((1, 4, 2, 2)).astype(np.float32)
    layer = Layer(x, w, ConvAttributes(), np.ones(5, np.float32), np.zeros(5, np.float32))
    conv = AdderConv(w, layer.scale, layer.bias, -np.inf, np.inf, (1, 1), (1, 1), 1, isa, "fast")
    assert conv.arithmetic == "exact"
    np.testing.assert_array_equal(run(layer, isa, 1, "fast"), run(layer, isa, 1, "exact"))
    np.testing.assert_allclose(run(layer, isa, 1, "fast"), layer.expected(), rtol=1e-6)


def test_one_filter_for_each_channel_is_summed_in_exact_arithmetic(isa: str) -> None:
    layer = make_layer(np.random.default_rng(8), 2, 35, 35, (6, 6), (3, 3), group=35)
    conv = AdderConv(layer.w, layer.scale, layer.bias, 0.0, 1.0, (1, 1), (1, 1), 35, isa, "fast")
    assert conv.arithmetic == "exact"
    np.testing.assert_array_equal(run(layer, isa, 1, "fast"), run(layer, isa, 2, "exact"))


def test_unknown_arithmetic() -> None:
    ones = np.ones(1, np.float32)
    w = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="arithmetic 'slow' is not exact or fast"):
        AdderConv(w, ones, ones, 0.0, 1.0, (1, 1), (1, 1), 1, "scalar", "slow")


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 64, 100])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16)])
def test_layout_conversions(channels: int, size: tuple[int, int]) -> None:
    shape = (2, channels, *size)
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    program = Program(shape[0], max(shape[0], 1))
    program.add_nchw_to_nhwc(0, shape, 0, "float32", "float32")
    program.add_nhwc_to_nchw(0, shape, 0, "float32", "float32")
    arena = np.full(program.arena_size(1), np.nan, np.float32)
    y = np.empty_like(x)
    program.run(arena, [x], [y], 2)
    np.testing.assert_array_equal(y, x)
    nhwc = arena.reshape(2, *size, padded_channels(channels))
    np.testing.assert_array_equal(nhwc[..., :channels], x.transpose(0, 2, 3, 1))
    assert (nhwc[..., channels:] == 0).all()


def convert(x: NDArray[Any], to: str) -> NDArray[Any]:
    """Through the kernels' layout into another element type."""
    shape = (1, 1, 1, x.size)
    program = Program(shape[0], max(shape[0], 1))
    program.add_nchw_to_nhwc(0, shape, 0, str(x.dtype), "float32")
    program.add_nhwc_to_nchw(0, shape, 0, to, "float32")
    y = np.empty(shape, to)
    program.run(np.empty(program.arena_size(1), np.float32), [x.reshape(shape)], [y], 1)
    return y.reshape(-1)


def test_every_float16_becomes_the_right_float32() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    converted = convert(halves, "float32")
    nan = np.isnan(halves)
    assert np.isnan(converted[nan]).all()
    np.testing.assert_array_equal(
        converted[~nan].view(np.uint32), halves[~nan].astype(np.float32).view(np.uint32)
    )


def test_float32_is_rounded_to_float16_as_numpy_does() -> None:
    """All halves, the points half way between them and their neighbours, and any bits."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves[-1] = 65536  # where infinity would be the next half
    ties = (halves[1:] + halves[:-1]) / 2
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    values = [halves, ties, np.nextafter(ties, 0), np.nextafter(ties, np.float32(np.inf)), random]
    x = np.concatenate([*values, *(-v for v in values)]).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    nan = np.isnan(x)
    result = convert(x, "float16")
    assert np.isnan(result[nan]).all()
    np.testing.assert_array_equal(result[~nan].view(np.uint16), expected[~nan].view(np.uint16))


def test_many_callers_share_the_pool() -> None:
    layer = make_layer(np.random.default_rng(5), 2, 16, 16, (12, 12), (3, 3))
    expected = run(layer, available_isas()[-1], 1)
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(40):
            if not np.array_equal(run(layer, available_isas()[-1], 1 + i % 4), expected):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _run_in_child(layer: Layer, queue: Any) -> None:
    queue.put(run(layer, available_isas()[-1], 3))


def test_pool_survives_a_fork() -> None:
    layer = make_layer(np.random.default_rng(6), 2, 16, 16, (12, 12), (3, 3))
    expected = run(layer, available_isas()[-1], 3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(layer, queue))
    child.start()
    result = queue.get(timeout=60)
    child.join(60)
    np.testing.assert_array_equal(result, expected)


def test_arguments_are_checked() -> None:
    ones = np.ones(4, np.float32)
    w = np.ones((4, 2, 3, 3), np.float32)
    isa = available_isas()[0]

    def conv(
        weights: Any = w,
        scale: Any = ones,
        strides: Any = (1, 1),
        dilations: Any = (1, 1),
        group: int = 1,
        level: str = isa,
    ) -> AdderConv:
        return AdderConv(weights, scale, ones, 0.0, 1.0, strides, dilations, group, level)

    with pytest.raises(ValueError, match="one value per filter"):
        conv(scale=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="at least 1"):
        conv(strides=(0, 1))
    with pytest.raises(ValueError, match="multiple of group"):
        conv(group=3)
    with pytest.raises(ValueError, match="'sse9' is unknown"):
        conv(level="sse9")
    with pytest.raises(TypeError):
        conv(weights=w.astype(np.float64))
    program = Program(1, 1)
    with pytest.raises(ValueError, match="negative"):
        program.add_nchw_to_nhwc(0, (1, -2, 3, 3), 0, "float32", "float32")
    with pytest.raises(ValueError, match="overlaps"):
        program.add_adder_conv(conv(), 1, (8, 8), (6, 6), (0, 0), 0, -1, 16)
    program.add_nchw_to_nhwc(0, (1, 2, 3, 3), 0, "float32", "float32")
    arena = np.zeros(program.arena_size(1), np.float32)
    x = np.zeros((1, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="arena is too small"):
        program.run(arena[:-1], [x], [], 1)
    with pytest.raises(ValueError, match="wrong size"):
        program.run(arena, [x[:, :1]], [], 1)
    with pytest.raises(ValueError, match="wrong number of inputs"):
        program.run(arena, [], [], 1)
    with pytest.raises(ValueError, match="threads"):
        program.run(arena, [x], [], 0)
    for wrong in (np.float16, np.float64, np.int32):
        with pytest.raises(ValueError, match="wrong element type"):
            program.run(arena, [x.astype(wrong)], [], 1)
    with pytest.raises(ValueError, match="element type 'int8'"):
        program.add_nchw_to_nhwc(1, (1, 2, 3, 3), 0, "int8", "float32")
    with pytest.raises(ValueError, match="order of their numbers"):
        program.add_nchw_to_nhwc(3, (1, 2, 3, 3), 0, "float32", "float32")
    with pytest.raises(TypeError):
        program.run(arena, [x.transpose(0, 1, 3, 2)], [], 1)


def test_isa_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    assert select_isa() == available_isas()[-1]
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    assert select_isa() == "scalar"
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    with pytest.raises(InputError, match="ADDER_ONNX_CPU_ISA=mmx"):
        select_isa()
