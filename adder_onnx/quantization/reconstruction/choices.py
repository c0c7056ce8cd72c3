"""What is chosen for a layer from samples: its input's range, its integer weights, its bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.kernels.cpu import choose_roundings
from adder_onnx.quantization.few_levels import with_levels
from adder_onnx.quantization.ranges import Quantization
from adder_onnx.quantization.reconstruction.layers import sums
from adder_onnx.quantization.weights import weight_of
from adder_onnx.runtime.interruption.run_control import call_interruptibly

__all__ = [
    "Seen",
    "choose_range",
    "choose_weights",
    "matching_bias",
    "round_weights",
    "steps_from",
    "wanted_sums",
]

_COARSE = np.geomspace(1, 1 / 32, 8)
_HALVINGS = 3
"""How often the step between shares is halved, around the best one."""

_LEVEL_SAMPLES = 1 << 18

_SWEEPS = 2
_PARTS = 4

_NO_STEP = 1e-3
"""A weight so near to an integer, in steps, has no other that it might be."""


@dataclass(frozen=True)
class Seen:
    """What a layer takes, in samples of its output pixels.

    Attributes:
        node: the layer.
        exact: columns of the float network's input, (C * kH * kW, samples).
        ours: the same of the quantized network, before this input is rounded.
    """

    node: AdderNode
    exact: NDArray[np.float32]
    ours: NDArray[np.float32]


def choose_range(
    low: float,
    high: float,
    bits: int,
    layers: Sequence[Seen],
    threads: int,
    levels: int | None = None,
) -> Quantization:
    """The quantization of a value with which the layers that take it lose least.

    That is the variance of the error of their sums, which is what a bias cannot take back, times
    the square of the layer's scale; relative to the variance of what is exact.

    Args:
        low: the least value in the float network.
        high: the greatest one.
        bits: 2 to 8.
        layers: those that take the value.
        threads: to use.
        levels: how many integers of the range the value becomes; of each range that is tried, those
            with the least squared error of what the layers take. None for all.
    """
    values = np.concatenate([_some(s.ours) for s in layers])
    exact = [sums(s.exact, weight_of(s.node), s.node.attributes.group, threads) for s in layers]
    signals = [_spread(s.node, sums_) or 1.0 for s, sums_ in zip(layers, exact, strict=True)]

    def covering(share: float) -> Quantization:
        q = Quantization.covering(low * share, high * share, bits)
        return q if levels is None else with_levels(q, levels, values)

    def loss(share: float) -> float:
        q = covering(share)
        total = 0.0
        for seen, truth, signal in zip(layers, exact, signals, strict=True):
            weight = steps_from(q, round_weights(seen.node, q))
            steps = steps_from(q, q.quantize(seen.ours))
            group = seen.node.attributes.group
            found = sums(steps, weight, group, threads, arithmetic="fast")
            total += _spread(seen.node, truth - q.scale * found) / signal
        return total

    return covering(_with_least(loss))


def _some(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """As many of the values, evenly apart, as levels are chosen by; flat."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // _LEVEL_SAMPLES) or 1]


def _with_least(loss: Callable[[float], float]) -> float:
    """The share of the whole range that loses least."""
    losses = {float(share): loss(float(share)) for share in _COARSE}
    step = float(_COARSE[0] / _COARSE[1])
    for _ in range(_HALVINGS):
        step **= 0.5
        best = min(losses, key=losses.__getitem__)
        for share in (best / step, best * step):
            if share <= 1 and share not in losses:
                losses[share] = loss(share)
    return min(losses, key=losses.__getitem__)


def _spread(node: AdderNode, values: NDArray[np.float32]) -> float:
    """The variances of each filter's row, with the layer's scale, added up."""
    return float(np.var(values, axis=1, dtype=np.float64) @ node.scale.astype(np.float64) ** 2)


def choose_weights(
    node: AdderNode,
    q: Quantization,
    x: NDArray[np.uint8],
    targets: NDArray[np.float64],
    threads: int,
) -> NDArray[np.uint8]:
    """The integers of a layer's weights, each rounded up or down so that the sums err least.

    Args:
        node: the layer.
        q: of its input.
        x: columns of its input's integers, (C * kH * kW, samples).
        targets: (M, samples), what the sums of integers should be, but for a constant of each
            filter.
        threads: to use.

    Returns:
        (M, C/group, kH, kW).
    """
    group = node.attributes.group
    places = _clamped(node, q) / float(q.scale) + q.zero_point
    integers = round_weights(node, q)
    away = places - integers
    steps = np.where(np.abs(away) > _NO_STEP, np.sign(away), 0).astype(np.int8)
    shape, filters = integers.shape, len(integers)
    found = sums(
        x.astype(np.float32), integers.astype(np.float32), group, threads, arithmetic="fast"
    )
    off = targets - found
    missing = (off - off.mean(axis=1, keepdims=True)).astype(np.float32)
    integers, steps, missing = (
        np.ascontiguousarray(array.reshape(filters, -1)) for array in (integers, steps, missing)
    )
    for number in range(group):
        own = slice(number * filters // group, (number + 1) * filters // group)
        taps = slice(number * len(x) // group, (number + 1) * len(x) // group)
        call_interruptibly(
            partial(
                choose_roundings,
                x[taps],
                integers[own],
                steps[own],
                missing[own],
                min(_PARTS, x.shape[1]),
                _SWEEPS,
                threads,
            )
        )
    return integers.reshape(shape)


def wanted_sums(
    targets: NDArray[np.float64],
    added: NDArray[np.float64],
    step_scale: NDArray[np.float64],
    otherwise: NDArray[np.floating],
) -> NDArray[np.float64]:
    """The sums of integers with which ``added - step_scale * sum``, but for a bias, is the target.

    Args:
        targets: (M, samples), before the bound.
        added: the residual as the quantized network has it, of the same shape, or one 0.
        step_scale: (M, 1).
        otherwise: what a filter gets whose scale is 0, and whose sums are of no matter.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = (added - targets) / step_scale
    return np.where(np.isfinite(wanted), wanted, otherwise)


def matching_bias(
    found: NDArray[np.float64], targets: NDArray[np.float64], clip_min: float
) -> NDArray[np.float64]:
    """The bias with which each row's mean, after a bound below, is that of its target.

    The mean of max(found + bias, clip_min) rises with the bias, linearly between the biases at
    which one more of the row is above the bound: the largest number of them that stays above with
    the bias that follows from it is the one. It is the threshold of a projection onto a simplex
    (Held, Wolfe and Crowder, *Validation of subgradient optimization*, 1974).

    Args:
        found: (M, samples).
        targets: (M, samples), before the bound.
        clip_min: the bound, or -inf.

    Returns:
        (M,). Where no target is above the bound, the result is not either.
    """
    means: NDArray[np.float64] = targets.mean(axis=1) - found.mean(axis=1)
    if clip_min == -np.inf:
        return means
    above = (np.maximum(targets, clip_min) - clip_min).sum(axis=1)
    falling = -np.sort(-found, axis=1)
    counts = np.arange(1, found.shape[1] + 1)
    biases = clip_min + (above[:, None] - np.cumsum(falling, axis=1)) / counts
    stays = falling + biases > clip_min
    last = found.shape[1] - 1 - stays[:, ::-1].argmax(axis=1)
    matching: NDArray[np.float64] = np.take_along_axis(biases, last[:, None], 1)[:, 0]
    return np.where(stays.any(axis=1), matching, np.minimum(means, clip_min - falling[:, 0]))


def round_weights(node: AdderNode, q: Quantization) -> NDArray[np.uint8]:
    """The integers nearest to a layer's weights."""
    return q.round(_clamped(node, q))


def steps_from(q: Quantization, integers: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Integers less the zero point."""
    steps: NDArray[np.float32] = integers.astype(np.float32) - np.float32(q.zero_point)
    return steps


def _clamped(node: AdderNode, q: Quantization) -> NDArray[np.float64]:
    return np.clip(weight_of(node).astype(np.float64), q.low, q.high)
