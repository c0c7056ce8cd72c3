"""Whether the CUDA kernels make the gradient of a layer's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.ops.reference import input_gradient
from benchmarks.cuda.check.training import run_gradient
from tests.layers import Layer

__all__ = ["assert_gradient_right", "gradient_by_kernels"]


def gradient_by_kernels(
    layer: Layer, grad_y: NDArray[np.float32], device: Any
) -> NDArray[np.float32]:
    """As a NumPy array."""
    found: NDArray[np.float32] = device.download(
        run_gradient(device, layer.x, layer.w, grad_y, layer.a)
    )
    return found


def assert_gradient_right(layer: Layer, device: Any, seed: int = 0) -> None:
    """Within the bounds on rounding that input_gradient.cuh implies."""
    rng = np.random.default_rng(seed)
    grad_y = rng.standard_normal(layer.y_shape).astype(np.float32)
    found = gradient_by_kernels(layer, grad_y, device)
    expected = input_gradient(layer.x, layer.w, grad_y, layer.a)
    # With slopes of 1: what all terms are together at most.
    steep = np.full_like(layer.w, 1e30)
    bound = input_gradient(layer.x, steep, np.abs(grad_y), layer.a)
    # Of sums over filters, of these over positions, and of the final ones; then those of a slope.
    roundings = layer.w.shape[0] // layer.a.group + layer.w[0, 0].size + 4
    tolerance = 2.0**-24 * bound * (2 * roundings + 2 * (2 + np.abs(layer.x)))
    assert found.shape == expected.shape
    error = np.abs(found - expected)
    assert (error <= tolerance).all(), f"{error.max()} {(error / tolerance).max()}"
