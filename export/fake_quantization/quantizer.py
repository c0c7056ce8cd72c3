"""What rounds a value, and the weights of the layers that take it.

|x − w| is not linear, so that a layer's input x and its weights w share a scale. A weight inside of
the range [l, h] of the integers is rounded; one beyond it stays as it is, since for every x in the
range

    |x − w| = |x − h| + (w − h)   where w > h, and likewise below,

which is an integer distance and a constant of the filter. So nothing is lost by clamping such a
weight when integers are written, its gradients are those of the layer (HardTanh(W − X) and X − W,
with the W that it has), and evaluation needs no other bias than training.

The scale's gradient comes from x alone. A weight beyond the range does not depend on the scale. For
one inside of it ∂ŵ/∂s is the rounding error k − w/s, whose mean over many weights is nearly zero;
and the layer's gradient of its weights cannot be added to that of x, since it is rescaled to a
given norm (equation 13 of Chen et al., CVPR 2020).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adder_onnx.export.fake_quantization.operators import ends, fake_quantize, quantize_dequantize
from adder_onnx.quantization.ranges import Quantization

__all__ = ["FakeQuantizer", "RoundInput", "RoundOutput", "RoundWeights"]


class FakeQuantizer(nn.Module):
    """Rounds a value to integers of a scale that is learned.

    Attributes:
        bits: there are 2**bits integers, which weights become.
        levels: (n,), uint8, the only ones that the value becomes; None for all.
        log_scale: (), the scale's logarithm, so that it stays positive whatever the optimizer does.
        zero_point: (), uint8, the integer that is zero.
    """

    zero_point: Tensor
    levels: Tensor | None

    def __init__(self, start: Quantization, like: Tensor) -> None:
        """Begins with a scale; the type and device are those of ``like``."""
        super().__init__()
        self.bits = start.bits
        self.log_scale = nn.Parameter(like.new_tensor(math.log(start.scale)))
        zero_point = torch.tensor(start.zero_point, dtype=torch.uint8, device=like.device)
        self.register_buffer("zero_point", zero_point)
        levels = torch.tensor(start.levels, dtype=torch.uint8, device=like.device)
        self.register_buffer("levels", levels if start.levels else None)
        self._fixed: Quantization | None = None

    @property
    def scale(self) -> Tensor:
        """(), the distance of two integers."""
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        few = "" if self.levels is None else f", levels={self.levels.tolist()}"
        return f"bits={self.bits}{few}"

    def forward(self, x: Tensor) -> Tensor:
        q = self._fixed
        if q is not None:
            return quantize_dequantize(x, float(q.scale), q.zero_point, q.bits, q.levels)
        return fake_quantize(x, self.scale, self.zero_point, self.bits, self.levels)

    def round_weights(self, weights: Tensor) -> Tensor:
        """Rounds weights inside of the range; all gradients pass."""
        scale = self.scale.detach()
        low, high = ends(self.zero_point.to(weights.dtype), self.bits, self.levels)
        ratio = weights.detach() / scale
        beyond = (ratio < low) | (ratio > high)
        rounded = torch.where(beyond, weights.detach(), ratio.round() * scale)
        # What is added is zero, and nothing is rounded by that.
        return rounded + (weights - weights.detach())

    def quantization(self) -> Quantization:
        """Scale, zero point and levels as they are now."""
        levels = () if self.levels is None else tuple(self.levels.tolist())
        zero_point = int(self.zero_point.item())
        return Quantization(np.float32(self.scale.item()), zero_point, self.bits, levels)

    def fix(self) -> None:
        """Ends learning: from now on scale and zero point are constants."""
        self._fixed = self.quantization()


class RoundWeights(nn.Module):
    """The parametrization of a layer's ``adder``, by the quantizer of its input."""

    def __init__(self, quantizer: FakeQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, weights: Tensor) -> Tensor:
        return self.quantizer.round_weights(weights)


class RoundOutput:
    """A forward hook that rounds what a module gives. (No closure: it is copied with the model.)"""

    def __init__(self, quantizer: FakeQuantizer) -> None:
        self._quantizer = quantizer

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Any:
        return self._quantizer(output)


class RoundInput:
    """A forward pre-hook that rounds one of the arguments of a module."""

    def __init__(self, quantizer: FakeQuantizer, position: int) -> None:
        self._quantizer = quantizer
        self._position = position

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        i = self._position
        return (*args[:i], self._quantizer(args[i]), *args[i + 1 :])
