"""The constants of an integer epilogue; integer/epilogue.cuh says what they are for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["IntegerEpilogue"]

_NORMAL = (2.0**-60, 2.0**60)
"""Between these no step of the division leaves the range of normal numbers."""

_FROM_SMALL, _FROM_LARGE = 2.0**100, 2.0**-70
"""Bring all other positive float32 numbers there: from 2**-149 and up to 2**128."""


@dataclass(frozen=True)
class IntegerEpilogue:
    """What follows an integer sum, but for the filters' scale and bias.

    Attributes:
        z_scale: of the residual.
        z_zero_point: of the residual.
        y_scale: of the output; positive and finite.
        y_zero_point: of the output.
        clip_min: lower bound of the activation, -inf or 0.
        bits: the output is at most 2**bits - 1.
    """

    z_scale: float
    z_zero_point: int
    y_scale: float
    y_zero_point: int
    clip_min: float
    bits: int

    def fields(self) -> dict[str, float]:
        """Of IntegerConvArgs."""
        smallest, largest = _NORMAL
        factor = 1.0
        if self.y_scale < smallest:
            factor = _FROM_SMALL
        elif self.y_scale > largest:
            factor = _FROM_LARGE
        scale = np.float32(self.y_scale) * np.float32(factor)
        low = np.float32(-self.y_zero_point) * scale
        top = 2**self.bits - 1
        return {
            "z_scale": self.z_scale,
            "z_zero_point": self.z_zero_point,
            "y_factor": factor,
            "y_scale": float(scale),
            "y_reciprocal": float(np.float32(1) / scale),
            "y_zero_point": self.y_zero_point,
            "low": max(float(low), self.clip_min),
            "high": float(np.float32(top - self.y_zero_point) * scale),
        }
