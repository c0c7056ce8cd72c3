"""What launchers need of a GPU, and one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["Device", "Grid", "Launch"]

Grid = tuple[int, int, int]
"""Blocks along x, y and z."""


class Device(Protocol):
    """Memory and launches on one GPU, in the order of the caller's current stream."""

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """An array of the device that holds anything."""

    def upload(self, array: NDArray[Any]) -> Any:
        """An array of the device with the values of a NumPy array."""

    def pointer(self, array: Any) -> int:
        """The address of an array's first element."""

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        """Starts a kernel; ``args``, of shape (), is its structure."""

    def finish(self) -> None:
        """Waits for all that has been started on the current stream."""


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments, but for the addresses that differ from run to run.

    Attributes:
        kernel: which.
        grid: its blocks; none of its dimensions is 0 where there is something to do.
        args: a structure, () of the kernel's type.
        owner: of the memory that ``args`` points at, which stays as long as the launch does.
    """

    kernel: Kernel
    grid: Grid
    args: NDArray[np.void]
    owner: object = None

    def run(self, device: Device, **addresses: int) -> None:
        """Starts the kernel with ``addresses`` filled in, by the fields' names."""
        if 0 in self.grid:
            return
        args = self.args.copy()
        for name, address in addresses.items():
            args[name] = address
        device.launch(self.kernel, self.grid, args)
