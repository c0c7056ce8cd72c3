"""Weights as integers of their input's scale, and what that leaves for the bias.

For x in [low, high] a weight outside of that range acts as the nearer end and a constant:

    w < low:   |x - w| = |x - low| + (low - w)
    w > high:  |x - w| = |x - high| + (w - high)

So weights are clamped to the range of the integers without loss, and the constants of a filter's
taps go into its bias (Nie et al., *Redistribution of Weights and Activations for AdderNet
Quantization*, NeurIPS 2022). It holds for padding too, since the range contains 0.

Rounding then changes a filter's sum. What it changes on average over the calibration data is known
from the histogram of each input channel, and goes into the bias as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.quantization.ranges import Histogram, Quantization

__all__ = ["IntegerLayer", "QuantizedWeights", "quantize_weights", "weight_of"]


@dataclass(frozen=True)
class IntegerLayer:
    """A layer's constants in integers.

    Attributes:
        weight: (M, C/group, kH, kW), uint8, in the scale of the layer's input.
        bias: (M,), float32.
        clamped: share of the float weights that lay outside of the input's range.
    """

    weight: NDArray[np.uint8]
    bias: NDArray[np.float32]
    clamped: float

    @classmethod
    def of(
        cls,
        node: AdderNode,
        quantization: Quantization,
        weight: NDArray[np.uint8],
        bias: NDArray[np.float64],
    ) -> IntegerLayer:
        """That of a node whose input has this quantization."""
        exact = weight_of(node)
        beyond = (exact < quantization.low) | (exact > quantization.high)
        return cls(weight, bias.astype(np.float32), float(np.mean(beyond)))


@dataclass(frozen=True)
class QuantizedWeights:
    """The result of `quantize_weights`.

    Attributes:
        integers: (M, C/group, kH, kW), uint8.
        constant: (M,), float64: to be added to each filter's sum of absolute differences.
        clamped: share of the weights that lay outside of the range.
    """

    integers: NDArray[np.uint8]
    constant: NDArray[np.float64]
    clamped: float


def quantize_weights(
    weight: NDArray[np.float32],
    group: int,
    quantization: Quantization,
    histogram: Histogram,
) -> QuantizedWeights:
    """Clamps and rounds a layer's weights.

    Args:
        weight: (M, C/group, kH, kW).
        group: number of groups.
        quantization: of the layer's input.
        histogram: of the layer's input, (C) channels.
    """
    exact = weight.astype(np.float64)
    clamped = np.clip(exact, quantization.low, quantization.high)
    integers = quantization.round(clamped)
    constant = np.abs(exact - clamped).sum(axis=(1, 2, 3))
    constant += _rounding(exact, clamped, integers, group, quantization, histogram)
    share = float(np.mean(exact != clamped))
    return QuantizedWeights(integers, constant, share)


def _rounding(
    exact: NDArray[np.float64],
    clamped: NDArray[np.float64],
    integers: NDArray[np.uint8],
    group: int,
    quantization: Quantization,
    histogram: Histogram,
) -> NDArray[np.float64]:
    """By how much each filter's sum is too small, on average over the histogram, (M,)."""
    filters, group_in = exact.shape[:2]
    per_group = filters // group
    x = histogram.centers
    x_rounded = quantization.dequantize(quantization.quantize(x))
    w_rounded = quantization.dequantize(integers)
    missing = np.zeros(filters)
    for group_number in range(group):
        own = slice(group_number * per_group, (group_number + 1) * per_group)
        for c in range(group_in):
            counts = histogram.counts[group_number * group_in + c]
            used = counts > 0
            if not used.any():
                continue
            share = counts[used] / counts.sum()
            # Distances of (bins) by (filters, kH, kW), averaged over the bins.
            true = np.abs(x[used, None] - exact[own, c].reshape(1, -1))
            ours = np.abs(x_rounded[used, None] - w_rounded[own, c].reshape(1, -1))
            lost = np.abs(exact[own, c] - clamped[own, c]).reshape(1, -1)
            difference = share @ (true - ours - lost)
            missing[own] += difference.reshape(per_group, -1).sum(axis=1)
    return missing


def weight_of(node: AdderNode) -> NDArray[np.float32]:
    """The weight of a float node that has a constant one, (M, C/group, kH, kW)."""
    assert isinstance(node.weight, np.ndarray)
    return node.weight.astype(np.float32)
