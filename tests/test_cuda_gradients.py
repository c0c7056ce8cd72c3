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
from tests.cuda_on_cpu.device import CpuDevice
from tests.gradients import assert_gradient_right, expected_gradient, run_gradient
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
