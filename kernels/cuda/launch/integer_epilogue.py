"""The constants of an integer epilogue; integer/epilogue.cuh says what they are for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IntegerEpilogue", "reciprocal_of"]


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
        top = 2**self.bits - 1
        y_scale = np.float32(self.y_scale)
        with np.errstate(over="ignore"):
            low = np.float32(-self.y_zero_point) * y_scale
            high = np.float32(top - self.y_zero_point) * y_scale
        return {
            "z_scale": self.z_scale,
            "z_zero_point": self.z_zero_point,
            "y_scale": self.y_scale,
            "y_reciprocal": reciprocal_of(self.y_scale),
            "y_zero_point": self.y_zero_point,
            "low": max(float(low), self.clip_min),
            "high": float(high),
            "top": top,
        }


def reciprocal_of(y_scale: float) -> float:
    """The reciprocal of a scale, or 0 where values must be divided by it.

    It is used where the product with it and one correction rounds to the same integer as the
    quotient does, at every border between two integers up to 255: at the four float32 numbers on
    either side of it. Both being monotone, they then do for all values in between.
    """
    # Beyond these, products could leave the range of normal numbers.
    if not 2.0**-60 < y_scale < 2.0**60:
        return 0.0
    scale = np.float32(y_scale)
    reciprocal = np.float32(1) / scale
    borders = (np.arange(256, dtype=np.float32) + np.float32(0.5)) * scale
    # Neighbours of a positive float32 are those of its bits as an integer.
    values = (borders.view(np.int32)[:, None] + np.arange(-4, 5, dtype=np.int32)).view(np.float32)
    product = values * reciprocal
    error = _fused(-product, scale, values)
    quotient = _fused(error, reciprocal, product)
    exact = (np.rint(quotient) == np.rint(values / scale)).all()
    return float(reciprocal) if exact else 0.0


def _fused(a: NDArray[np.float32], b: np.float32, c: NDArray[np.float32]) -> NDArray[np.float32]:
    """``a * b + c`` rounded once, to float32.

    The product is exact in float64. The sum is rounded to odd there, after which rounding to
    float32 does what one rounding would have done (Boldo and Melquiond, 2008).
    """
    product = a.astype(np.float64) * np.float64(b)
    wide = c.astype(np.float64)
    total = product + wide
    part = total - product
    lost = (product - (total - part)) + (wide - part)  # what the sum has lost (Knuth's TwoSum)
    is_even = total.view(np.int64) % 2 == 0
    toward = np.where(lost > 0, np.inf, -np.inf)
    odd = np.where((lost != 0) & is_even, np.nextafter(total, toward), total)
    rounded: NDArray[np.float32] = odd.astype(np.float32)
    return rounded
