"""Ranges of activations: what is seen of them, and which part of it the integers cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError, InputError

__all__ = ["CALIBRATIONS", "Histogram", "Quantization", "choose"]

CALIBRATIONS = ("output", "mse", "percentile", "minmax")

_BINS = 2048
_CANDIDATES = 128


@dataclass(frozen=True)
class Quantization:
    """How the values of a tensor become integers: ``q = round(v / scale) + zero_point``.

    Attributes:
        scale: float32.
        zero_point: the integer that stands for 0.
        bits: integers are 0 … 2**bits - 1.
        levels: those of them that the values become, ascending, the zero point among them; all
            where it is empty. Weights become any integer of the range.
    """

    scale: np.float32
    zero_point: int
    bits: int
    levels: tuple[int, ...] = ()

    @classmethod
    def covering(cls, low: float, high: float, bits: int) -> Quantization:
        """Covers [low, high] and 0, which an integer stands for exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        levels = 2**bits - 1
        scale = np.float32((high - low) / levels) if high > low else np.float32(1)
        scale = scale if scale > 0 else np.float32(1)  # below the smallest float32
        return cls(scale, int(np.clip(np.rint(-low / float(scale)), 0, levels)), bits)

    @property
    def least(self) -> int:
        """The least integer that a value becomes."""
        return self.levels[0] if self.levels else 0

    @property
    def greatest(self) -> int:
        """The greatest one."""
        return self.levels[-1] if self.levels else int(2**self.bits - 1)

    @property
    def low(self) -> float:
        """The least value that an integer stands for."""
        return float(self.least - self.zero_point) * float(self.scale)

    @property
    def high(self) -> float:
        """The greatest one."""
        return float(self.greatest - self.zero_point) * float(self.scale)

    def quantize(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The integers of values, saturated: the nearest levels, of two the lower."""
        if not self.levels:
            return self.round(values)
        places = values / float(self.scale)
        levels = np.asarray(self.levels, np.uint8)
        borders = (levels[1:].astype(np.float64) + levels[:-1]) / 2 - self.zero_point
        return levels[np.searchsorted(borders, places, side="left")]

    def round(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The nearest integers of the range, whether they are levels or not."""
        integers = np.rint(values / float(self.scale)) + self.zero_point
        saturated: NDArray[np.uint8] = np.clip(integers, self.least, self.greatest).astype(np.uint8)
        return saturated

    def dequantize(self, integers: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The values that integers stand for."""
        return (integers.astype(np.float64) - self.zero_point) * float(self.scale)


class Histogram:
    """How often values occur in each channel, over bins that grow with what is seen.

    Attributes:
        counts: (C, bins).
        low: where the first bin begins.
        width: of a bin.
    """

    def __init__(self, channels: int, bins: int = _BINS) -> None:
        self.counts = np.zeros((channels, bins), np.int64)
        self.low = 0.0
        self.width = 0.0
        self.smallest, self.largest = np.inf, -np.inf

    def add(self, values: NDArray[np.floating], name: str) -> None:
        """Counts an array (N, C, …).

        Raises:
            DataError: a value is not finite.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DataError(
                f"the calibration data make {name} infinite or undefined: leave out the samples "
                "that are"
            )
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        self._cover(min(low, 0.0), max(high, 0.0))
        channels, bins = self.counts.shape
        if self.width == 0:  # all values so far are zero
            self.counts[:, 0] += values.size // channels
            return
        numbers = ((values - self.low) / self.width).astype(np.int64).clip(0, bins - 1)
        by_channel = np.moveaxis(numbers, 1, 0).reshape(channels, -1)
        for channel, row in enumerate(by_channel):
            self.counts[channel] += np.bincount(row, minlength=bins)

    def _cover(self, low: float, high: float) -> None:
        """Widens the bins until they cover a range, by joining neighbours."""
        bins = self.counts.shape[1]
        if self.width == 0:
            zeros = self.counts[:, 0].copy()
            self.low, self.width = low, (high - low) / bins * (1 + 1e-9)
            self.counts[:] = 0
            if self.width:
                at_zero = min(int(-self.low / self.width), bins - 1)
                self.counts[:, at_zero] = zeros
            else:
                self.counts[:, 0] = zeros
            return
        while self.low > low or self.low + self.width * bins < high:
            joined = self.counts.reshape(-1, bins // 2, 2).sum(axis=2)
            self.counts[:] = 0
            if self.low > low:  # room below
                self.counts[:, bins // 2 :] = joined
                self.low -= self.width * bins
            else:
                self.counts[:, : bins // 2] = joined
            self.width *= 2

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray(
            self.low + (np.arange(self.counts.shape[1]) + 0.5) * self.width, np.float64
        )

    def percentile(self, percent: float) -> float:
        """The value that so many percent of all values are at most."""
        cumulated = np.cumsum(self.counts.sum(axis=0))
        bin_ = int(np.searchsorted(cumulated, cumulated[-1] * percent / 100))
        edge = self.low + (min(bin_, len(cumulated) - 1) + 1) * self.width
        return min(edge, self.largest)


def choose(
    histogram: Histogram, bits: int, calibration: str, percentile: float = 99.9
) -> Quantization:
    """The quantization of a tensor.

    Args:
        histogram: of its values.
        bits: 2 to 8.
        calibration: ``minmax`` covers all; ``percentile`` leaves out the same share above and,
            where there are negative values, below; ``mse`` has the least mean squared error among
            ranges that are a part of the whole one.
        percentile: for ``percentile``.

    Raises:
        InputError: the calibration is not known.
    """
    low, high = min(histogram.smallest, 0.0), max(histogram.largest, 0.0)
    if calibration == "minmax":
        return Quantization.covering(low, high, bits)
    if calibration == "percentile":
        below = histogram.percentile(100 - percentile) if low < 0 else 0.0
        return Quantization.covering(below, histogram.percentile(percentile), bits)
    if calibration != "mse":
        raise InputError(f"calibration {calibration!r} is not one of {', '.join(CALIBRATIONS)}")
    counts = histogram.counts.sum(axis=0)
    used = counts > 0
    values, weights = histogram.centers[used], counts[used]
    best, least = Quantization.covering(low, high, bits), np.inf
    for share in np.linspace(1, 1 / _CANDIDATES, _CANDIDATES):
        candidate = Quantization.covering(low * share, high * share, bits)
        errors = candidate.dequantize(candidate.quantize(values)) - values
        error = float(weights @ errors**2)
        if error < least:
            best, least = candidate, error
    return best
