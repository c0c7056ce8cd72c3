"""What launchers need of a GPU, and one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["SCRATCH_ZEROS", "Device", "Grid", "Launch"]

SCRATCH_ZEROS = 4096
"""The first bytes of a launch's scratch memory, which must be zero and are zero again afterwards:
the counters of common/split.cuh."""

Grid = tuple[int, int, int]
"""Blocks along x, y and z."""


class Device(Protocol):
    """Memory and launches on one GPU, in the order of the caller's current stream.

    Attributes:
        multiprocessors: how many it has.
        target: what kernels are compiled for on it: ``sm_90``, or ``sm_120f`` for a family.
    """

    @property
    def multiprocessors(self) -> int: ...

    @property
    def target(self) -> str: ...

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """An array of the device that holds anything."""

    def upload(self, array: NDArray[Any]) -> Any:
        """An array of the device with the values of a NumPy array."""

    def clear(self, address: int, size: int) -> None:
        """Sets so many bytes to zero."""

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
        scratch: bytes of memory that the field ``scratch`` must point at, aligned to 16, or 0.
            The first `SCRATCH_ZEROS` of them must be zero, and are so again afterwards: launches
            of one stream can share this memory, and it need be cleared only once.
    """

    kernel: Kernel
    grid: Grid
    args: NDArray[np.void]
    owner: object = None
    scratch: int = 0

    def run(self, device: Device, **addresses: int) -> None:
        """Starts the kernel with ``addresses`` filled in, by the fields' names."""
        if 0 in self.grid:
            return
        args = _copy(self.args)
        for name, address in addresses.items():
            args[name] = address
        assert not self.scratch or args["scratch"], f"{self.kernel.name} has no scratch memory"
        device.launch(self.kernel, self.grid, args)

    def with_scratch(self, device: Device) -> Launch:
        """The same with scratch memory of its own, for who does not share that of others."""
        if not self.scratch:
            return self
        scratch = device.empty((self.scratch,), np.uint8)
        args = _copy(self.args)
        args["scratch"] = device.pointer(scratch)
        device.clear(device.pointer(scratch), SCRATCH_ZEROS)
        return replace(self, args=args, owner=(self.owner, scratch))


def _copy(args: NDArray[np.void]) -> NDArray[np.void]:
    """Of a structure, at once: NumPy's own goes field by field, and takes longer than a launch."""
    copy: NDArray[np.void] = np.ndarray((), args.dtype, bytearray(args.tobytes()))
    return copy
