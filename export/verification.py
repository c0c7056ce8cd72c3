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

__all__ = ["Verification", "verify"]

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

    def passes(self, rtol: float) -> bool:
        """Whether no runner differs by more than ``rtol`` times the largest logit, a finite one."""
        finite = bool(np.isfinite(self.scale))
        return finite and all(error <= rtol * self.scale for error in self.errors.values())


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
    with torch.no_grad():
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
