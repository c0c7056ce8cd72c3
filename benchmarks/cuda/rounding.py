"""What right outputs of the kernels may be off by."""

from __future__ import annotations

import math

__all__ = ["MEAN_DIFFERENCE", "TOLERANCE", "WrongResultError"]

MEAN_DIFFERENCE = 2 / math.sqrt(math.pi)
"""Of two standard normal values, in absolute value."""

TOLERANCE = {"float32": (2e-5, 2.0**-22), "float16": (0.03, 2.0**-10)}
"""What a right sum may be off by: of the root of its number of taps, and of the output itself.

Roundings of partial sums are independent and of both signs. In the sum of a layer's taps this finds
a missing kernel position or channel, which a bound on the worst case would let pass.
"""


class WrongResultError(Exception):
    """A kernel's output differs from float64: its times mean nothing."""
