"""The geometry of a layer, in the fields that the structures of all convolutions share.

A structure is filled in twice: with what a layer fixes (`Geometry.args`), and, in a copy of it,
with the sizes of one shape (`with_sizes`). Kernels index with 32 bits. Which of their counts grows
with the shape depends on the kernel; each count must stay below 2**31 (`check_counts`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.layout import padded_channels

__all__ = ["Geometry", "Pair", "check_counts", "with_sizes"]

Pair = tuple[int, int]
"""Vertical, horizontal."""

_MAX_COUNT = 1 << 31


@dataclass(frozen=True)
class Geometry:
    """What a layer fixes, whatever the shape of its input.

    Attributes:
        weight: (M, C/group, kH, kW), the shape of the weights.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
        type: ``float32``, ``float16`` or ``uint8``: of the tensors inside the chain.
    """

    weight: tuple[int, int, int, int]
    strides: Pair
    dilations: Pair
    group: int
    type: str

    @property
    def filters(self) -> int:
        return self.weight[0]

    @property
    def channels(self) -> int:
        return self.group_in * self.group

    @property
    def group_in(self) -> int:
        """Channels of a group."""
        return self.weight[1]

    @property
    def group_out(self) -> int:
        """Filters of a group."""
        return self.filters // self.group

    @property
    def kernel(self) -> Pair:
        return self.weight[2:]

    @property
    def x_row(self) -> int:
        """Elements from one pixel of x to the next."""
        return padded_channels(self.channels, self.type)

    def args(self, structure: np.dtype[np.void]) -> NDArray[np.void]:
        """A kernel's structure, of shape (), with the layer's fields; the others are 0."""
        args = np.zeros((), structure)
        args["group_in"], args["group_out"] = self.group_in, self.group_out
        args["kernel_h"], args["kernel_w"] = self.kernel
        args["stride_h"], args["stride_w"] = self.strides
        args["dilation_h"], args["dilation_w"] = self.dilations
        args["x_row"], args["y_row"] = self.x_row, padded_channels(self.filters, self.type)
        return args

    def reach(self, in_size: Pair) -> int:
        """Elements that a tap may lie behind an image's first, in the pads, too.

        Args:
            in_size: height and width of x.
        """
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        return (max(in_size[0], spans[0]) * in_size[1] + spans[1]) * self.x_row


def with_sizes(
    args: NDArray[np.void], in_size: Pair, out_size: Pair, pad_begin: Pair
) -> NDArray[np.void]:
    """A copy of a layer's structure with the fields of one shape.

    Args:
        args: the layer's structure.
        in_size: height and width of x.
        out_size: height and width of y.
        pad_begin: pads above and to the left.
    """
    args = args.copy()
    args["in_h"], args["in_w"] = in_size
    args["out_h"], args["out_w"] = out_size
    args["pad_top"], args["pad_left"] = pad_begin
    return args


def check_counts(images: str, *counts: int) -> None:
    """Checks that a kernel's indices have room for what it counts.

    Args:
        images: what is too large where they have not.
        counts: the largest of each kind.

    Raises:
        InputError: one of them has more than 31 bits.
    """
    if max(counts) >= _MAX_COUNT:
        raise InputError(
            f"{images} are too large for the CUDA kernels, which index with 32 bits: use a smaller "
            "batch"
        )
