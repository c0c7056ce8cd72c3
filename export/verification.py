"""Comparing an exported file with PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adder_onnx.export.native_layer import without_native_kernels

__all__ = ["DEFAULT_RTOL", "MAX_RTOL", "Verification", "verify"]

DEFAULT_RTOL = 1e-4
MAX_RTOL = 0.02

_IMAGES = 2


@dataclass(frozen=True)
class Verification:
    """Largest differences from the logits that PyTorch computes in float64.

    Attributes:
        scale: the largest absolute logit.
        errors: largest absolute difference of each runner, by its name.
        pytorch_float32: that of PyTorch's own float32.
    """

    scale: float
    errors: dict[str, float]
    pytorch_float32: float

    def allowed(self, rtol: float | None = None) -> float:
        """The largest difference that passes.

        It is ``rtol`` times the largest logit. Without ``rtol`` it is `DEFAULT_RTOL` times that, or
        twice PyTorch's own error where that is more: a deep network with random weights magnifies
        the rounding of any float32 arithmetic. It is never more than `MAX_RTOL` times that.
        """
        if rtol is not None:
            return rtol * self.scale
        own = 2 * self.pytorch_float32 if np.isfinite(self.pytorch_float32) else 0.0
        return min(max(DEFAULT_RTOL * self.scale, own), MAX_RTOL * self.scale)

    def passes(self, rtol: float | None = None) -> bool:
        """Whether the logits are finite and no runner differs by more than is allowed."""
        allowed = self.allowed(rtol)
        return bool(np.isfinite(self.scale)) and all(e <= allowed for e in self.errors.values())


def verify(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    runners: Mapping[str, Callable[[NDArray[np.float32]], NDArray[Any]]],
) -> Verification:
    """Runs noise of unit variance (seeded) through PyTorch and through each runner.

    Args:
        model: in evaluation mode, float32.
        input_shape: C, H and W.
        runners: functions from an input (2, C, H, W) to logits (2, classes).
    """
    images = np.random.default_rng(0).standard_normal((_IMAGES, *input_shape)).astype(np.float32)
    with torch.no_grad(), without_native_kernels():
        truth = copy.deepcopy(model).double()(torch.from_numpy(images).double()).numpy()
        float32 = model(torch.from_numpy(images)).numpy()
    return Verification(
        scale=float(np.abs(truth).max()),
        errors={name: _error(run(images), truth) for name, run in runners.items()},
        pytorch_float32=_error(float32, truth),
    )


def _error(logits: NDArray[Any], truth: NDArray[np.float64]) -> float:
    if logits.shape != truth.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):  # infinity less infinity
        error = float(np.abs(logits.astype(np.float64) - truth).max())
    return error if np.isfinite(error) else float("inf")
