"""The adder layer and its gradients as the paper defines them, in NumPy and float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ALL", "SOME", "Geometry", "definition", "paper_gradients", "tensors"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __str__(self) -> str:
        values = (self.kernel, self.stride, self.padding, self.dilation)
        return "-".join(f"{a}x{b}" for a, b in values) + f"-g{self.groups}"

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `adder_conv2d` takes after the tensors."""
        return (self.stride, self.padding, self.dilation, self.groups)


ALL = [
    Geometry(*values)
    for values in itertools.product(
        [(3, 3), (1, 1), (2, 3)],
        [(1, 1), (2, 2), (3, 1)],
        [(0, 0), (2, 1)],
        [(1, 1), (1, 2)],
        [1, 2, 4],
    )
]
SOME = [
    Geometry(padding=(1, 1)),
    Geometry((1, 1), stride=(2, 2)),
    Geometry((3, 3), stride=(2, 2), padding=(1, 1), groups=2),
    Geometry((2, 3), stride=(3, 1), padding=(2, 1), dilation=(1, 2)),
    Geometry((3, 1), dilation=(2, 1), padding=(0, 2), groups=4),
]


def patches(x: Array, g: Geometry) -> Array:
    """The padded input at each output position, (N, oH, oW, C, kH, kW)."""
    (pad_h, pad_w), (step_h, step_w), (gap_h, gap_w) = g.padding, g.stride, g.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    reach_h, reach_w = gap_h * (g.kernel[0] - 1) + 1, gap_w * (g.kernel[1] - 1) + 1
    tops = range(0, padded.shape[2] - reach_h + 1, step_h)
    lefts = range(0, padded.shape[3] - reach_w + 1, step_w)
    rows = [
        [padded[:, :, t : t + reach_h : gap_h, k : k + reach_w : gap_w] for k in lefts]
        for t in tops
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def definition(x: Array, w: Array, g: Geometry) -> Array:
    """Equation 2 of the paper for each group on its own."""
    per_group, filters = w.shape[1], w.shape[0] // g.groups
    taps = patches(x, g)
    parts = []
    for i in range(g.groups):
        of_group = taps[:, :, :, None, i * per_group : (i + 1) * per_group]
        distance = np.abs(of_group - w[i * filters : (i + 1) * filters])
        parts.append(-distance.sum(axis=(4, 5, 6)))
    return np.moveaxis(np.concatenate(parts, axis=3), 3, 1)


def paper_gradients(x: Array, w: Array, grad_y: Array, g: Geometry) -> tuple[Array, Array]:
    """Equations 5 and 7 on the whole (positions, filters, taps) tensor, then equation 13."""
    per_group, filters = w.shape[1], w.shape[0] // g.groups
    # Where each tap of each patch lies in a padded image.
    height, width = x.shape[2] + 2 * g.padding[0], x.shape[3] + 2 * g.padding[1]
    inner = np.full((height, width), -1.0)
    inner[g.padding[0] : height - g.padding[0], g.padding[1] : width - g.padding[1]] = np.arange(
        x.shape[2] * x.shape[3]
    ).reshape(x.shape[2:])
    places = patches(inner[None, None], Geometry(g.kernel, g.stride, (0, 0), g.dilation))
    taps = patches(x, g)
    grad_w = np.zeros(w.shape)
    grad_x = np.zeros(x.shape)
    for i in range(g.groups):
        xs, ws = (
            slice(i * per_group, (i + 1) * per_group),
            slice(i * filters, (i + 1) * filters),
        )
        columns = taps[:, :, :, xs].reshape(-1, 1, w[0].size)
        rows = w[ws].reshape(1, filters, -1)
        grad = np.moveaxis(grad_y[:, ws], 1, 3).reshape(-1, filters, 1)
        grad_w[ws] = ((columns - rows) * grad).sum(0).reshape(w[ws].shape)
        tap_grads = (np.clip(rows - columns, -1, 1) * grad).sum(1)
        tap_grads = tap_grads.reshape(taps[:, :, :, xs].shape)
        for n, row, column, c, k, m in np.ndindex(tap_grads.shape):
            place = int(places[0, row, column, 0, k, m])
            if place >= 0:
                y, z = divmod(place, x.shape[3])
                grad_x[n, xs.start + c, y, z] += tap_grads[n, row, column, c, k, m]
    return grad_x, 0.2 * np.sqrt(w.size) / np.linalg.norm(grad_w) * grad_w


def tensors(
    g: Geometry, dtype: torch.dtype = torch.float64, batch: int = 2
) -> tuple[Tensor, Tensor]:
    """An input (batch, 4, 6, 7) and 8 filters, with differences inside and outside of [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 6, 7, generator=generator, dtype=dtype)
    w = torch.randn(8, 4 // g.groups, *g.kernel, generator=generator, dtype=dtype)
    return x, w
