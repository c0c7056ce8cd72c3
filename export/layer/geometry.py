"""The sizes of an adder layer in PyTorch, and how its tensors lie in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Geometry", "check", "memory_format", "output_size", "pair"]


class Geometry(NamedTuple):
    """How a layer's kernel moves over images; pairs are (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def pair(value: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """One number, or one for each of height and width, as two."""
    if isinstance(value, int):
        return (value, value)
    first, second = value
    return (first, second)


def check(x: Tensor, weight: Tensor, groups: int) -> None:
    """Checks that filters fit an input.

    Raises:
        ValueError: they do not.
    """
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"expected (N, C, H, W) and (M, C/groups, kH, kW), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        raise ValueError(
            f"weight {tuple(weight.shape)} with groups={groups} does not fit the input "
            f"{tuple(x.shape)}"
        )


def output_size(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[int, int]:
    """Height and width of the output.

    Raises:
        ValueError: the kernel does not fit into the padded image, or there is no such geometry.
    """
    stride, padding, dilation, _ = geometry
    if min(stride) < 1 or min(padding) < 0 or min(dilation) < 1:
        raise ValueError(
            f"stride={stride}, padding={padding}, dilation={dilation}; expected at least 1, 0 and 1"
        )
    size = []
    for i, name in enumerate(("height", "width")):
        span = dilation[i] * (weight.shape[2 + i] - 1) + 1
        padded = x.shape[2 + i] + 2 * padding[i]
        if span > padded:
            raise ValueError(
                f"the kernel spans {span} pixels in {name}, more than the padded image's {padded}"
            )
        size.append((padded - span) // stride[i] + 1)
    return (size[0], size[1])


def memory_format(x: Tensor) -> torch.memory_format:
    """How what is made from ``x`` lies in memory: channels last where ``x`` does, else contiguous.

    A tensor that is both, as one of a single channel, counts as contiguous.
    """
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
