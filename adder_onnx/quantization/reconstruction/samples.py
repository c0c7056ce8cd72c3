"""Output pixels drawn from all calibration images, and what an adder layer sees there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from adder_onnx.graph.adder_node import AdderNode

__all__ = ["Pixels", "columns", "draw", "pixels_of"]

Pixels = NDArray[np.int64]
"""(samples, 3): number of the image in its feed, row and column of the output."""


def draw(
    node: AdderNode,
    shapes: Sequence[tuple[int, ...]],
    count: int,
    rng: np.random.Generator,
) -> list[Pixels]:
    """Draws output pixels of a layer without putting any back.

    Args:
        node: the layer.
        shapes: of its input in each feed, (N, C, H, W).
        count: how many; fewer where there are fewer.
        rng: draws.

    Returns:
        Those of each feed, in the order in which they lie.
    """
    assert isinstance(node.weight, np.ndarray)
    kernel = node.weight.shape[2:]
    sizes = [(shape[0], *node.attributes.output_size(shape[2:], kernel)) for shape in shapes]
    ends = np.cumsum([0, *(n * h * w for n, h, w in sizes)])
    total = int(ends[-1])
    chosen = np.arange(total) if total <= count else rng.choice(total, count, replace=False)
    chosen = np.sort(chosen)
    found = []
    for size, begin, end in zip(sizes, ends, ends[1:], strict=False):
        own = chosen[(chosen >= begin) & (chosen < end)] - begin
        found.append(np.stack(np.unravel_index(own, size), axis=1))
    return found


def columns(
    node: AdderNode, pixels: Sequence[Pixels], load: Callable[[int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The patches of a layer's input, (C * kH * kW, samples); padding is 0.

    Args:
        node: the layer.
        pixels: of each feed.
        load: gives the input of a feed, (N, C, H, W).
    """
    assert isinstance(node.weight, np.ndarray)
    a, kernel = node.attributes, node.weight.shape[2:]
    found = []
    for number, own in enumerate(pixels):
        if not len(own):
            continue
        x = load(number)
        size = x.shape[2:]
        pads = a.resolve_pads(size, kernel)
        places = [
            own[:, 1 + axis, None] * a.strides[axis]
            - pads[axis]
            + np.arange(kernel[axis]) * a.dilations[axis]
            for axis in range(2)
        ]
        inside = [(p >= 0) & (p < s) for p, s in zip(places, size, strict=True)]
        rows, cols = (p.clip(0, s - 1) for p, s in zip(places, size, strict=True))
        patches = x[own[:, 0, None, None], :, rows[:, :, None], cols[:, None, :]]
        patches *= (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        # (samples, kH, kW, C) to (C, kH, kW, samples)
        found.append(patches.transpose(3, 1, 2, 0).reshape(-1, len(own)))
    return np.ascontiguousarray(np.concatenate(found, axis=1))


def pixels_of(
    pixels: Sequence[Pixels], load: Callable[[int], NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Values of an output-shaped tensor, (M, samples), from what ``load`` gives of each feed."""
    found = [
        load(number)[own[:, 0], :, own[:, 1], own[:, 2]].T
        for number, own in enumerate(pixels)
        if len(own)
    ]
    return np.concatenate(found, axis=1).astype(np.float64)
