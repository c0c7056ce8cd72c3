"""Running one layer in the CUDA kernels, on a GPU or on what stands in for one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.conv import AdderConv
from adder_onnx.kernels.cuda.launch.device import SCRATCH_ZEROS, Launch
from adder_onnx.kernels.cuda.launch.integer_conv import IntegerAdderConv
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.kernels.cuda.launch.selection import grids
from tests.integer_layers import QLayer
from tests.layers import Layer

__all__ = ["assert_near", "assert_right", "run", "run_integers", "splits"]


def run(
    layer: Layer, type_: str, device: Any, *, force_direct: bool = False, grid: int | None = None
) -> NDArray[Any]:
    """The layer's output, (N, M, oH, oW) of ``type_``, by the kernels and both conversions.

    ``grid`` is the number of the one to take of `grids`, or beyond their end that modulo how many
    there are; None is the one that is selected.
    """
    conv = _conv(layer, type_, device, force_direct)
    return _run(conv, layer, type_, device, grid=grid)


def splits(layer: Layer, type_: str, device: Any) -> int:
    """How many blocks share a sum of the layer."""
    conv = _conv(layer, type_, device, force_direct=False)
    return int(_launch(conv, layer, device, None).args["splits"])


def _conv(layer: Layer, type_: str, device: Any, force_direct: bool) -> AdderConv:
    a = layer.a
    return AdderConv(
        device,
        layer.w.astype(type_),
        layer.scale,
        layer.bias,
        layer.clip,
        a.strides,
        a.dilations,
        a.group,
        type_,
        force_direct=force_direct,
    )


def run_integers(
    layer: QLayer,
    device: Any,
    *,
    force_direct: bool = False,
    channel_padding: int | None = None,
    grid: int | None = None,
) -> NDArray[np.uint8]:
    """The quantized layer's output, (N, M, oH, oW), by the kernels and both conversions.

    ``channel_padding`` is put, on the CPU, where x has bytes beyond its last channel. ``grid`` is
    as for `run`.
    """
    a = layer.a
    x_zero, z_zero, y_zero = layer.zero_points
    x_scale, z_scale, y_scale = layer.scales
    conv = IntegerAdderConv(
        device,
        layer.w,
        x_zero,
        x_scale * layer.scale,
        layer.bias,
        IntegerEpilogue(
            *(float(z_scale), z_zero, float(y_scale), y_zero, layer.clip_min),
            *(layer.bits, layer.levels),
        ),
        a.strides,
        a.dilations,
        a.group,
        force_direct=force_direct,
    )
    return _run(conv, layer, "uint8", device, channel_padding, grid)


def _run(
    conv: AdderConv | IntegerAdderConv,
    layer: Layer | QLayer,
    type_: str,
    device: Any,
    channel_padding: int | None = None,
    grid: int | None = None,
) -> NDArray[Any]:
    arrays: list[Any] = []  # kept, so that their memory stays

    def channels_last(shape: tuple[int, ...]) -> int:
        size = layout.nhwc_size(shape, type_)  # type: ignore[arg-type]
        arrays.append(device.empty((size,), np.uint8))
        return int(device.pointer(arrays[-1]))

    def enter(array: NDArray[Any]) -> int:
        to = channels_last(array.shape)
        arrays.append(device.upload(array.astype(type_)))
        launch = layout.enter(array.shape, type_, type_)  # type: ignore[arg-type]
        launch.run(device, **{"from": device.pointer(arrays[-1]), "to": to})
        return to

    addresses = {"x": enter(layer.x)}
    if channel_padding is not None:
        row = layout.padded_channels(layer.x.shape[1], type_)
        arrays[0].reshape(-1, row)[:, layer.x.shape[1] :] = channel_padding
    if layer.z is not None:
        addresses["z"] = enter(layer.z)
    addresses["y"] = channels_last(layer.y_shape)
    launch = _launch(conv, layer, device, grid)
    if launch.scratch:
        arrays.append(device.empty((launch.scratch,), np.uint8))
        addresses["scratch"] = device.pointer(arrays[-1])
        device.clear(addresses["scratch"], SCRATCH_ZEROS)
    launch.run(device, **addresses)
    if launch.scratch:
        assert not device.download(arrays[-1][:SCRATCH_ZEROS]).any(), "counters are 0 again"
    y = device.empty(layer.y_shape, type_)
    leave = layout.leave(layer.y_shape, type_, type_)
    leave.run(device, **{"from": addresses["y"], "to": device.pointer(y)})
    result: NDArray[Any] = device.download(y)
    return result


def _launch(
    conv: AdderConv | IntegerAdderConv, layer: Layer | QLayer, device: Any, grid: int | None
) -> Launch:
    top, left, _, _ = layer.a.resolve_pads(layer.x.shape[2:], layer.w.shape[2:])
    batch, _, *out_size = layer.y_shape
    forced: Any = None
    if grid is not None and conv.tile is not None:
        options = grids(conv.product(batch * math.prod(out_size)), device.multiprocessors)
        forced = options[grid % len(options)]
    sizes = ((layer.x.shape[2], layer.x.shape[3]), layer.y_shape[2:], (top, left))
    return conv.launch(batch, *sizes, force_grid=forced)


def assert_right(
    layer: Layer, type_: str, device: Any, *, force_direct: bool = False, grid: int | None = None
) -> None:
    """The layer's output is right, by `assert_near`; the arguments are those of `run`."""
    assert_near(run(layer, type_, device, force_direct=force_direct, grid=grid), layer, type_)


def assert_near(y: NDArray[Any], layer: Layer, type_: str) -> None:
    """An output is within the bounds on rounding that taps.cuh implies."""
    exact = Layer(
        layer.x.astype(type_).astype(np.float32),
        layer.w.astype(type_).astype(np.float32),
        layer.a,
        layer.scale,
        layer.bias,
        None if layer.z is None else layer.z.astype(type_).astype(np.float32),
        layer.clip,
    )
    expected, tolerance = exact.expected(), exact.tolerance(roundings=32)
    if type_ == "float16":
        # Eight float16 roundings in a partial sum; one of the result, which may be subnormal.
        tolerance = tolerance + exact.tolerance(roundings=9, unit=2.0**-11) + 2.0**-24
    assert y.shape == expected.shape
    assert y.dtype == type_
    error = np.abs(y - expected)
    assert (error <= tolerance).all(), f"{error.max()} {(error / tolerance).max()}"
