"""The CUDA kernels of the input's gradient, compiled for the CPU, against the paper's formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.gradients import InputGradient
from adder_onnx.kernels.cuda.launch.selection import select_gradient_tile
from adder_onnx.kernels.cuda.launch.variants import GRADIENT_TILES
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import input_gradient
from tests.cuda_on_cpu.device import CpuDevice
from tests.gradients import assert_gradient_right, gradient_by_kernels
from tests.layers import Layer, layers, make_layer


@settings(max_examples=120, deadline=None)
@given(layer=layers(), backwards=st.booleans())
def test_any_shape(layer: Layer, backwards: bool) -> None:
    device = CpuDevice(backwards=backwards)
    assert_gradient_right(layer, device)
    device.check_guards()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "attributes"),
    [
        (16, 16, (32, 32), (3, 3), {"pads": (1, 1, 1, 1)}),
        (16, 32, (32, 32), (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (32, 64, (16, 16), (1, 1), {"strides": (2, 2)}),
        (64, 64, (14, 14), (3, 3), {"pads": (1, 1, 1, 1)}),
        (200, 64, (7, 7), (1, 1), {}),
        (64, 512, (5, 5), (3, 3), {"pads": (1, 1, 1, 1)}),
        (96, 48, (9, 9), (5, 5), {"pads": (2, 2, 2, 2), "group": 3}),
        (32, 32, (9, 9), (3, 3), {"group": 32}),
        (36, 30, (9, 9), (3, 3), {"group": 2}),
        (8, 4, (30, 30), (11, 11), {"strides": (4, 4), "pads": (5, 5, 5, 5)}),
        (24, 16, (20, 6), (3, 2), {"dilations": (3, 2), "pads": (4, 0, 1, 3)}),
        (24, 20, (11, 13), (4, 5), {"dilations": (2, 3), "strides": (4, 2), "pads": (1, 2, 3, 4)}),
        (70, 33, (5, 5), (2, 2), {}),
        (16, 16, (4, 5), (2, 3), {"strides": (7, 9)}),
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
    layer = make_layer(np.random.default_rng(0), 2, channels, filters, size, kernel, **attributes)
    device = CpuDevice(backwards=backwards)
    assert_gradient_right(layer, device)
    device.check_guards()


def test_every_kernel_is_tested() -> None:
    """The shapes above reach every tile, and the kernel without one."""
    reached = {
        select_gradient_tile(group, channels // group, filters // group)
        for channels, filters, group in [
            (16, 16, 1),
            (32, 64, 1),
            (64, 64, 1),
            (96, 48, 3),
            (32, 32, 32),
        ]
    }
    assert reached == {*GRADIENT_TILES, None}


def test_groups_that_share_a_chunk_of_four_take_the_direct_kernel() -> None:
    assert select_gradient_tile(1, 9, 5) is not None
    assert select_gradient_tile(2, 16, 16) is not None
    assert select_gradient_tile(2, 18, 16) is None
    assert select_gradient_tile(2, 16, 18) is None
    assert select_gradient_tile(1, 7, 16) is None


def test_sums_of_thousands_of_terms_stay_precise() -> None:
    """A sum of all terms in a row would be off by 2e-6 of the gradient's size here."""
    rng = np.random.default_rng(3)
    layer = make_layer(rng, 1, 16, 512, (6, 6), (3, 3), pads=(1, 1, 1, 1))
    grad_y = rng.standard_normal(layer.y_shape).astype(np.float32)
    expected = input_gradient(layer.x, layer.w, grad_y, layer.a)
    error = gradient_by_kernels(layer, grad_y, CpuDevice()) - expected
    assert np.sqrt(np.mean(error**2)) < 7e-7 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("channels", [2, 16])
def test_slopes_are_clipped_by_hand(channels: int) -> None:
    x = np.array([-5.0, -0.5, 0.25, 3.0], np.float32).reshape(1, 1, 1, 4).repeat(channels, 1)
    w = np.zeros((1, channels, 1, 1), np.float32)
    layer = Layer(x, w, ConvAttributes(), np.ones(1, np.float32), np.zeros(1, np.float32))
    found = gradient_by_kernels(layer, np.full((1, 1, 1, 4), 3, np.float32), CpuDevice())
    assert found.tolist() == [[[[3.0, 1.5, -0.75, -3.0]]] * channels] * 1


@pytest.mark.parametrize("channels", [2, 16])
def test_nan_and_infinity_are_not_hidden(channels: int) -> None:
    """An undefined input has an undefined gradient, an infinite one the slope of its sign."""
    x = np.array([np.nan, np.inf, -np.inf, 1], np.float32).reshape(1, 1, 1, 4).repeat(channels, 1)
    w = np.ones((4, channels, 1, 1), np.float32)
    layer = Layer(x, w, ConvAttributes(), np.ones(4, np.float32), np.zeros(4, np.float32))
    grad_y = np.ones((1, 4, 1, 4), np.float32)
    found = gradient_by_kernels(layer, grad_y, CpuDevice())
    np.testing.assert_array_equal(found[0, :, 0], [[np.nan, -4, 4, 0]] * channels)
    grad_y[0, 0] = np.inf
    assert not np.isfinite(gradient_by_kernels(layer, grad_y, CpuDevice())[0, :, 0]).any()


def test_results_do_not_depend_on_the_batch() -> None:
    layer = make_layer(
        np.random.default_rng(1), 5, 40, 36, (13, 9), (3, 3), pads=(1, 1, 1, 1), strides=(2, 1)
    )
    grad_y = np.random.default_rng(2).standard_normal(layer.y_shape).astype(np.float32)
    found = gradient_by_kernels(layer, grad_y, CpuDevice())
    for n in range(5):
        one = Layer(layer.x[n : n + 1], layer.w, layer.a, layer.scale, layer.bias)
        of_one = gradient_by_kernels(one, grad_y[n : n + 1], CpuDevice())
        np.testing.assert_array_equal(of_one, found[n : n + 1])


def test_padding_channels_of_the_input_are_never_used() -> None:
    """They are NaN here, as those of another layer's output may be."""
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((8, 9, 1, 1)), rng.standard_normal((1, 2, 2, 9))
    device = CpuDevice()
    weight = device.upload(w.astype(np.float32))
    inside = device.empty((1, 2, 2, 12), np.float32)
    assert np.isnan(inside).all()
    inside[..., :9] = x
    grad_y = device.upload(np.ones((1, 2, 2, 8), np.float32))
    grad_x = device.empty((1, 2, 2, 12), np.float32)
    gradient = InputGradient((8, 9, 1, 1), (1, 1), (1, 1), 1)
    packed = gradient.pack(device, weight)
    gradient.launch(1, (2, 2), (2, 2), (0, 0)).run(
        device,
        weights=device.pointer(packed),
        x=device.pointer(inside),
        grad_y=device.pointer(grad_y),
        grad_x=device.pointer(grad_x),
    )
    expected = np.clip(w[:, :, 0, 0] - x[..., None, :], -1, 1).sum(3)
    np.testing.assert_allclose(grad_x[..., :9], expected, rtol=1e-5, atol=1e-6)


def test_what_32_bit_indices_cannot_reach_is_refused() -> None:
    gradient = InputGradient((8, 8, 3, 3), (1, 1), (1, 1), 1)
    gradient.launch(2000, (1024, 1024), (1022, 1022), (0, 0))
    with pytest.raises(InputError, match="smaller batch"):
        gradient.launch(2100, (1024, 1024), (1022, 1022), (0, 0))


def test_no_pixel_is_in_two_phases() -> None:
    """With a stride of 2 by 3 there are 6, each of at most so many pixels as its largest."""
    gradient = InputGradient((8, 64, 3, 3), (2, 3), (1, 1), 1)
    launch = gradient.launch(10, (31, 30), (15, 10), (0, 0))
    assert launch.grid == (6 * -(-10 * 16 * 10 // 64), 1, 1)
