"""The gradients that training takes, against float64: kernels alone, and `AdderConv2d` in torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.kernels.cuda.launch.device import Device
from adder_onnx.kernels.cuda.launch.gradients import InputGradient
from adder_onnx.kernels.cuda.launch.selection import kernels_on
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import input_gradient
from benchmarks.cuda.check.kernels import SHAPES, Shape
from benchmarks.cuda.check.results import FailedError, SkippedError
from benchmarks.cuda.machine import SessionMachine

__all__ = ["check_gradients", "check_training", "run_gradient"]

_TYPE = "float32"
_TOLERANCE = 1e-5
"""What a right gradient may be off by, of the root of its number of terms: they are of size 1."""

_TRAINING_TOLERANCE = 2e-5
"""The same of what `AdderConv2d` gives, of the largest element."""

_SHARE_OF_TF32 = 0.25
"""What the filters' gradient may be off by, of the error that an input in TF32 brings.

cuDNN makes it, and may do so in any way that computes in float32: Winograd's transforms cost a
digit and more. TF32, which PyTorch lets it use unless told otherwise, comes to all of that error.
"""


def check_gradients(machine: SessionMachine) -> str:
    """The input's gradient for all shapes.

    Raises:
        FailedError: an element is off by more than its rounding errors are by chance.
    """
    gpu = machine.gpu
    gpu.prepare(kernels_on(gpu.target))
    worst = 0.0
    with gpu.using(gpu.new_stream()):
        for seed, shape in enumerate(SHAPES):
            rng = np.random.default_rng(seed)
            x, w = _inputs(rng, shape)
            a = ConvAttributes.from_mapping(shape.attributes)
            out = a.output_size(x.shape[2:], w.shape[2:])
            grad_y = rng.standard_normal((shape.batch, shape.filters, *out)).astype(_TYPE)
            found = gpu.download(run_gradient(gpu, x, w, grad_y, a))
            terms = shape.filters // shape.group * shape.kernel**2
            error = np.abs(found - input_gradient(x, w, grad_y, a)).max()
            share = float(error) / (_TOLERANCE * math.sqrt(terms))
            if not share <= 1:
                raise FailedError(f"{shape}: an element is off by {share:.3g} times what it may be")
            worst = max(worst, share)
    return f"{len(SHAPES)} shapes, at most {100 * worst:.0f} % of what rounding may be"


def check_training(machine: SessionMachine) -> str:
    """`AdderConv2d` and its gradients in torch, on a stream of torch's own, in both layouts.

    Raises:
        SkippedError: there is no torch with CUDA.
        FailedError: a result is off by more than its rounding errors are by chance.
    """
    try:
        import torch
    except ImportError as error:
        raise SkippedError("torch is not installed") from error
    if not torch.cuda.is_available():
        raise SkippedError(f"torch {torch.__version__} has no CUDA")
    from adder_onnx.export import adder_conv2d

    def results(x: Any, w: Any, shape: Shape) -> dict[str, Any]:
        x, w = x.detach().requires_grad_(x.requires_grad), w.detach().requires_grad_()
        y = adder_conv2d(x, w, shape.stride, shape.kernel // 2, 1, shape.group)
        y.backward(torch.cos(torch.arange(y.numel(), device=y.device)).to(y.dtype).view_as(y))
        found = {"output": y, "input's gradient": x.grad, "filters' gradient": w.grad}
        return {name: t.detach().double().cpu() for name, t in found.items() if t is not None}

    worst: dict[str, float] = {}
    for seed, shape in enumerate(SHAPES):
        inputs = _inputs(np.random.default_rng(seed), shape)
        x, w = (torch.from_numpy(array) for array in inputs)
        expected = results(x.double().requires_grad_(), w.double(), shape)
        allowed = {n: _TRAINING_TOLERANCE * float(t.abs().max()) for n, t in expected.items()}
        name = "filters' gradient"
        rounded = results(torch.from_numpy(_tf32(inputs[0])).double(), w.double(), shape)
        allowed[name] = _SHARE_OF_TF32 * float((rounded[name] - expected[name]).abs().max())
        for lies in (torch.contiguous_format, torch.channels_last):
            with torch.cuda.stream(torch.cuda.Stream()):
                there = x.cuda().contiguous(memory_format=lies).requires_grad_()
                found = results(there, w.cuda(), shape)
            for name, ours in found.items():
                error = float((ours - expected[name]).abs().max())
                if not error <= allowed[name]:
                    raise FailedError(
                        f"{shape}, {lies}: the {name} is off by {error:.3g}, more than "
                        f"{allowed[name]:.3g}"
                    )
                worst[name] = max(worst.get(name, 0.0), error / allowed[name])
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in worst.items())
    return (
        f"torch {torch.__version__}: {len(SHAPES)} shapes, contiguous and channels last, at most "
        f"of what is allowed: {shares}"
    )


def run_gradient(
    device: Device,
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    grad_y: NDArray[np.float32],
    attributes: ConvAttributes,
) -> Any:
    """The input's gradient, (N, C, H, W), an array of the device, by the kernels."""
    a, shape = attributes, x.shape
    gradient = InputGradient(w.shape, a.strides, a.dilations, a.group)  # type: ignore[arg-type]
    raw = device.upload(w)
    weights = gradient.pack(device, raw)
    x_inside, grad_y_inside = _enter(device, x), _enter(device, grad_y)
    inside = device.empty((layout.nhwc_size(shape, _TYPE),), np.uint8)  # type: ignore[arg-type]
    top, left, _, _ = a.resolve_pads(shape[2:], w.shape[2:])
    launch = gradient.launch(
        shape[0], (shape[2], shape[3]), (grad_y.shape[2], grad_y.shape[3]), (top, left)
    )
    launch.run(
        device,
        weights=device.pointer(weights),
        x=device.pointer(x_inside),
        grad_y=device.pointer(grad_y_inside),
        grad_x=device.pointer(inside),
    )
    result = device.empty(shape, _TYPE)
    leave = layout.leave(shape, _TYPE, _TYPE)  # type: ignore[arg-type]
    leave.run(device, **{"from": device.pointer(inside), "to": device.pointer(result)})
    return result


def _enter(device: Device, array: NDArray[np.float32]) -> Any:
    shape, source = array.shape, device.upload(array)
    inside = device.empty((layout.nhwc_size(shape, _TYPE),), np.uint8)  # type: ignore[arg-type]
    enter = layout.enter(shape, _TYPE, _TYPE)  # type: ignore[arg-type]
    enter.run(device, **{"from": device.pointer(source), "to": device.pointer(inside)})
    return inside


def _tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to the 11 bits of TF32."""
    bits = (x.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return bits.view(np.float32)


def _inputs(rng: np.random.Generator, shape: Shape) -> tuple[NDArray[np.float32], ...]:
    sizes = (
        (shape.batch, shape.channels, shape.size, shape.size),
        (shape.filters, shape.channels // shape.group, shape.kernel, shape.kernel),
    )
    return tuple(rng.standard_normal(size).astype(_TYPE) for size in sizes)
