"""An adder layer by PyTorch's own operators: any type and device, slow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adder_onnx.export.layer.geometry import Geometry

__all__ = ["forward", "gradients"]

_MAX_COLUMN_BYTES = 1 << 28
"""Bound on the size of the image-to-column matrix that is made at a time."""


def forward(x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """The layer, by ``torch.cdist``.

    Args:
        x: (N, C, H, W), float32 or float64.
        weight: (M, C / groups, kH, kW), of the same type.
        geometry: of the layer.
        size: of the output.

    Returns:
        (N, M, *size), contiguous.
    """
    filters, groups = weight.flatten(1), geometry.groups
    parts = []
    for part in _batch_chunks(x, size[0] * size[1], filters.shape[1]):
        of_group = [
            torch.cdist(_columns(xg, weight, geometry), wg, p=1.0)
            for xg, wg in zip(part.chunk(groups, 1), filters.chunk(groups), strict=True)
        ]
        parts.append(-torch.cat(of_group, 2).transpose(1, 2))
    return torch.cat(parts).reshape(x.shape[0], weight.shape[0], *size)


def gradients(
    x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry, needs_x: bool
) -> tuple[Tensor | None, Tensor]:
    """Equations 7, where ``needs_x``, and 5 of the paper.

    Never are positions x filters x taps values held at a time.
    """
    filters, per_group = weight.flatten(1), weight.shape[0] // geometry.groups
    positions, taps = grad_y.shape[2] * grad_y.shape[3], filters.shape[1]
    grad_filters = torch.zeros_like(filters)
    grad_x = torch.empty_like(x) if needs_x else None
    first = 0
    for part in _batch_chunks(x, positions, taps):
        last = first + part.shape[0]
        grad_part = grad_y[first:last].flatten(2)
        for g in range(geometry.groups):
            xs = slice(g * weight.shape[1], (g + 1) * weight.shape[1])
            ws = slice(g * per_group, (g + 1) * per_group)
            columns = _columns(part[:, xs], weight, geometry)
            grad = grad_part[:, ws]
            # Sum over positions p of (X[p,k] - W[o,k]) * grad[o,p], as a matrix product.
            grad_filters[ws] += (grad @ columns).sum(0)
            grad_filters[ws] -= filters[ws] * grad.sum((0, 2))[:, None]
            if grad_x is not None:
                grad_columns = torch.zeros_like(columns)
                for o, w in enumerate(filters[ws]):
                    clipped = (w - columns).clamp_(-1, 1)
                    grad_columns.addcmul_(clipped, grad[:, o, :, None])
                grad_x[first:last, xs] = functional.fold(
                    grad_columns.transpose(1, 2),
                    (x.shape[2], x.shape[3]),
                    (weight.shape[2], weight.shape[3]),
                    dilation=geometry.dilation,
                    padding=geometry.padding,
                    stride=geometry.stride,
                )
        first = last
    return grad_x, grad_filters.view_as(weight)


def _batch_chunks(x: Tensor, positions: int, taps: int) -> list[Tensor]:
    """The batch in parts whose image-to-column matrices are of bounded size."""
    per_image = max(1, positions * taps * x.element_size())
    return list(torch.split(x, max(1, _MAX_COLUMN_BYTES // per_image)))


def _columns(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Patches as rows, (N, positions, taps)."""
    columns: Tensor = functional.unfold(
        x,
        (weight.shape[2], weight.shape[3]),
        dilation=geometry.dilation,
        padding=geometry.padding,
        stride=geometry.stride,
    )
    return columns.transpose(1, 2).contiguous()
