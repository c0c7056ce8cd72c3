"""The gradient of a layer's input, by the CUDA kernels and from the paper's formula."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.gradients import InputGradient
from tests.layers import Layer

__all__ = ["assert_gradient_right", "expected_gradient", "run_gradient"]

_Array = NDArray[np.float64]


def expected_gradient(layer: Layer, grad_y: NDArray[np.float32]) -> tuple[_Array, _Array]:
    """Equation 7 in float64, and for each element the sum of what its terms may be at most."""
    a = layer.a
    top, left, bottom, right = a.resolve_pads(layer.x.shape[2:], layer.w.shape[2:])
    margins = ((0, 0), (0, 0), (top, bottom), (left, right))
    x = np.pad(layer.x.astype(np.float64), margins)
    gradient, bound = np.zeros_like(x), np.zeros_like(x)
    group_in, group_out = layer.w.shape[1], layer.w.shape[0] // a.group
    rows, columns = grad_y.shape[2:]
    for i, j in np.ndindex(layer.w.shape[2:]):
        first_h, first_w = i * a.dilations[0], j * a.dilations[1]
        at_h = slice(first_h, first_h + a.strides[0] * (rows - 1) + 1, a.strides[0])
        at_w = slice(first_w, first_w + a.strides[1] * (columns - 1) + 1, a.strides[1])
        for g in range(a.group):
            at = (slice(None), slice(g * group_in, (g + 1) * group_in), at_h, at_w)
            of_group = slice(g * group_out, (g + 1) * group_out)
            w = layer.w[of_group, :, i, j].astype(np.float64)[None, :, :, None, None]
            grads = grad_y[:, of_group].astype(np.float64)[:, :, None]
            gradient[at] += (np.clip(w - x[at][:, None], -1, 1) * grads).sum(1)
            bound[at] += np.abs(grads).sum(1)
    inner = (
        slice(None),
        slice(None),
        slice(top, top + layer.x.shape[2]),
        slice(left, left + layer.x.shape[3]),
    )
    return gradient[inner], bound[inner]


def run_gradient(layer: Layer, grad_y: NDArray[np.float32], device: Any) -> NDArray[np.float32]:
    """By the kernels and the conversions around them."""
    a = layer.a
    arrays: list[Any] = [device.upload(layer.w)]  # kept, so that their memory stays
    gradient = InputGradient(layer.w.shape, a.strides, a.dilations, a.group)  # type: ignore[arg-type]
    arrays.append(gradient.pack(device, arrays[0]))
    weights = device.pointer(arrays[-1])

    def channels_last(shape: tuple[int, ...]) -> int:
        size = layout.nhwc_size(shape, "float32")  # type: ignore[arg-type]
        arrays.append(device.empty((size,), np.uint8))
        return int(device.pointer(arrays[-1]))

    def enter(array: NDArray[np.float32]) -> int:
        to = channels_last(array.shape)
        arrays.append(device.upload(array))
        launch = layout.enter(array.shape, "float32", "float32")  # type: ignore[arg-type]
        launch.run(device, **{"from": device.pointer(arrays[-1]), "to": to})
        return to

    addresses = {
        "x": enter(layer.x),
        "grad_y": enter(grad_y),
        "grad_x": channels_last(layer.x.shape),
    }
    top, left, _, _ = a.resolve_pads(layer.x.shape[2:], layer.w.shape[2:])
    in_size = (layer.x.shape[2], layer.x.shape[3])
    out_size = (grad_y.shape[2], grad_y.shape[3])
    gradient.launch(layer.x.shape[0], in_size, out_size, (top, left)).run(
        device, weights=weights, **addresses
    )
    result = device.empty(layer.x.shape, np.float32)
    leave = layout.leave(layer.x.shape, "float32", "float32")  # type: ignore[arg-type]
    leave.run(device, **{"from": addresses["grad_x"], "to": device.pointer(result)})
    found: NDArray[np.float32] = device.download(result)
    return found


def assert_gradient_right(layer: Layer, device: Any, seed: int = 0) -> None:
    """Within the bounds on rounding that input_gradient.cuh implies."""
    rng = np.random.default_rng(seed)
    grad_y = rng.standard_normal(layer.y_shape).astype(np.float32)
    found = run_gradient(layer, grad_y, device)
    expected, bound = expected_gradient(layer, grad_y)
    # Of sums over filters, of these over positions, and of the final ones; then those of a slope.
    roundings = layer.w.shape[0] // layer.a.group + layer.w[0, 0].size + 4
    tolerance = 2.0**-24 * bound * (2 * roundings + 2 * (2 + np.abs(layer.x)))
    assert found.shape == expected.shape
    error = np.abs(found - expected)
    assert (error <= tolerance).all(), f"{error.max()} {(error / tolerance).max()}"
