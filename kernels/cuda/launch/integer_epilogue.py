"""The constants of an integer epilogue; integer/epilogue.cuh says what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.params import MOST_BORDERS

__all__ = ["IntegerEpilogue"]

_NORMAL = (2.0**-60, 2.0**60)
"""Between these no step of the division leaves the range of normal numbers."""

_FROM_SMALL, _FROM_LARGE = 2.0**100, 2.0**-70
"""Bring all other positive float32 numbers there: from 2**-149 and up to 2**128."""


_FOUR_BYTES = 0x01010101
"""A byte times this is the same byte four times over."""

_INFINITE = 0x7F800000
"""The place of infinity among all float32 above 0."""


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
        levels: the only values of the output, rising; none for all.
    """

    z_scale: float
    z_zero_point: int
    y_scale: float
    y_zero_point: int
    clip_min: float
    bits: int
    levels: tuple[int, ...] = ()

    def fields(self) -> dict[str, Any]:
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
            **self._of_levels(),
        }

    def _of_levels(self) -> dict[str, Any]:
        if not self.levels:
            return {"borders": 0}
        levels = np.asarray(self.levels, np.float32)
        quotients = (levels[:-1] + levels[1:]) / 2 - np.float32(self.y_zero_point)
        left = (0, MOST_BORDERS - len(quotients))
        return {
            "borders": len(quotients),
            "first_level": self.levels[0] * _FOUR_BYTES,
            "border": np.pad(self._values_above(quotients), left),
            "step": np.pad(np.diff(self.levels) * _FOUR_BYTES, left),
        }

    def _values_above(self, quotients: NDArray[np.float32]) -> NDArray[np.float32]:
        """The least value of which each quotient is exceeded; -inf where clip_min's exceeds it."""
        scale, clip = np.float32(self.y_scale), np.float32(self.clip_min)
        below = np.full(len(quotients), -_INFINITE)
        above = np.full(len(quotients), _INFINITE)
        with np.errstate(over="ignore", under="ignore"):
            while (above - below > 1).any():
                middle = (below + above) // 2
                exceeds = _float_at(middle) / scale > quotients
                below, above = np.where(exceeds, below, middle), np.where(exceeds, middle, above)
            return np.where(clip / scale > quotients, np.float32(-np.inf), _float_at(above))


def _float_at(place: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 so many places above 0; all but NaN are in order, and -0 is 0."""
    size = np.abs(place).astype(np.uint32).view(np.float32)
    return np.where(place < 0, -size, size)
