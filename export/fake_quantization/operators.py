"""Rounding to a few levels, as operators that torch.export keeps in one piece.

A value v is rounded to x̂ = s·k, k = clamp(round(v / s), −z, Q − z), Q = 2^bits − 1; ties go to the
even integer, as in ONNX' QuantizeLinear. With l = −z·s and h = (Q − z)·s the gradients are

    ∂x̂/∂v = 1 where l ≤ v ≤ h, else 0       (straight through)
    ∂x̂/∂s = k − v/s where l ≤ v ≤ h, else k

The second is the derivative of clamp(v, l, h) + s·(k − v/s) with the rounding error k − v/s held
(Esser et al., *Learned Step Size Quantization*, ICLR 2020, equation 3). It is not divided by
sqrt(n·Q) as there (section 2.2), which is to keep a scale from moving faster than weights: those of
an adder layer have a gradient that is rescaled to 0.2 per weight, which is larger in any case.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fake_quantize", "quantize_dequantize"]


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Rounds values to 2**bits levels, with gradients for the values and the scale.

    Args:
        x: (N, …), float32 or float64.
        scale: (), of the same type, positive.
        zero_point: (), uint8, the number of the level that is zero.
        bits: 2 to 8.
    """
    result: Tensor = torch.ops.adder_onnx.fake_quantize(x, scale, zero_point, bits)
    return result


def quantize_dequantize(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """The same of constants, which become QuantizeLinear and DequantizeLinear in ONNX."""
    result: Tensor = torch.ops.adder_onnx.quantize_dequantize(x, scale, zero_point, bits)
    return result


def _rounded(x: Tensor, scale: Tensor, zero_point: int | Tensor, bits: int) -> Tensor:
    low = torch.as_tensor(zero_point, dtype=x.dtype, device=x.device).neg()
    return (x / scale).round_().clamp_(low, low + (2**bits - 1)).mul_(scale)


@torch.library.custom_op("adder_onnx::quantize_dequantize", mutates_args=())
def _quantize_dequantize(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    return _rounded(x, torch.tensor(scale, dtype=x.dtype, device=x.device), zero_point, bits)


@_quantize_dequantize.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("adder_onnx::fake_quantize", mutates_args=())
def _fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    return _rounded(x, scale, zero_point, bits)


@_fake_quantize.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


# As the adder layers, which take what is rounded.
for _device_type in ("cpu", "cuda"):
    _fake_quantize.register_autocast(_device_type, torch.float32)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, scale, zero_point, ctx.bits = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    x, scale, zero_point = ctx.saved_tensors
    levels = 2**ctx.bits - 1
    low = zero_point.to(x.dtype).neg()
    ratio = x / scale
    clamped = ratio.clamp(low, low + levels)
    inside = ratio == clamped
    grad_x = grad * inside if ctx.needs_input_grad[0] else None
    grad_scale = None
    if ctx.needs_input_grad[1]:
        slope = clamped.round() - ratio * inside
        grad_scale = (grad * slope).sum()
    return grad_x, grad_scale, None, None


_fake_quantize.register_autograd(_backward, setup_context=_setup_context)
