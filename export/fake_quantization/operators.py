"""Rounding to few integers, and levels among them, as operators that torch.export keeps whole.

A value v is rounded to x̂ = s·k, k = clamp(round(v / s), −z, Q − z), Q = 2^bits − 1; ties go to the
even integer, as in ONNX' QuantizeLinear. With l = −z·s and h = (Q − z)·s the gradients are

    ∂x̂/∂v = 1 where l ≤ v ≤ h, else 0       (straight through)
    ∂x̂/∂s = k − v/s where l ≤ v ≤ h, else k

Of levels, k + z is the one nearest to v / s + z, of two the lower; the first and the last of them
take the places of 0 and Q.

The second is the derivative of clamp(v, l, h) + s·(k − v/s) with the rounding error k − v/s held
(Esser et al., *Learned Step Size Quantization*, ICLR 2020, equation 3). It is not divided by
sqrt(n·Q) as there (section 2.2), which is to keep a scale from moving faster than weights: those of
an adder layer have a gradient that is rescaled to 0.2 per weight, which is larger in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ends", "fake_quantize", "quantize_dequantize"]


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, levels: Tensor | None = None
) -> Tensor:
    """Rounds values to integers of a scale, with gradients for the values and the scale.

    Args:
        x: (N, …), float32 or float64.
        scale: (), of the same type, positive.
        zero_point: (), uint8, the integer that is zero.
        bits: 2 to 8.
        levels: (n,), uint8, the only integers; None for all.
    """
    result: Tensor = torch.ops.adder_onnx.fake_quantize(x, scale, zero_point, bits, levels)
    return result


def quantize_dequantize(
    x: Tensor, scale: float, zero_point: int, bits: int, levels: Sequence[int] = ()
) -> Tensor:
    """The same of constants, which become QuantizeLinear and DequantizeLinear in ONNX."""
    result: Tensor = torch.ops.adder_onnx.quantize_dequantize(x, scale, zero_point, bits, levels)
    return result


def _rounded(ratio: Tensor, zero: Tensor, bits: int, levels: Tensor | None) -> Tensor:
    """The k of each v / s."""
    if levels is None:
        return ratio.round().clamp_(-zero, 2**bits - 1 - zero)
    steps = levels.to(ratio.dtype) - zero
    middles = (steps[1:] + steps[:-1]) / 2
    return steps[torch.bucketize(ratio, middles)]


def ends(zero: Tensor, bits: int, levels: Tensor | None) -> tuple[Tensor, Tensor]:
    """The least k and the greatest."""
    if levels is None:
        return -zero, 2**bits - 1 - zero
    return levels[0] - zero, levels[-1] - zero


@torch.library.custom_op("adder_onnx::quantize_dequantize", mutates_args=())
def _quantize_dequantize(
    x: Tensor, scale: float, zero_point: int, bits: int, levels: list[int]
) -> Tensor:
    factor, zero = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (scale, zero_point))
    few = torch.tensor(levels, device=x.device) if levels else None
    return _rounded(x / factor, zero, bits, few).mul_(factor)


@_quantize_dequantize.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("adder_onnx::fake_quantize", mutates_args=())
def _fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, levels: Tensor | None
) -> Tensor:
    return _rounded(x / scale, zero_point.to(x.dtype), bits, levels).mul_(scale)


@_fake_quantize.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


# As the adder layers, which take what is rounded.
for _device_type in ("cpu", "cuda"):
    _fake_quantize.register_autocast(_device_type, torch.float32)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, scale, zero_point, ctx.bits, levels = inputs
    ctx.save_for_backward(x, scale, zero_point, levels)


def _backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    x, scale, zero_point, levels = ctx.saved_tensors
    zero = zero_point.to(x.dtype)
    ratio = x / scale
    inside = ratio == ratio.clamp(*ends(zero, ctx.bits, levels))
    grad_x = grad * inside if ctx.needs_input_grad[0] else None
    grad_scale = None
    if ctx.needs_input_grad[1]:
        slope = _rounded(ratio, zero, ctx.bits, levels) - ratio * inside
        grad_scale = (grad * slope).sum()
    return grad_x, grad_scale, None, None, None


_fake_quantize.register_autograd(_backward, setup_context=_setup_context)
