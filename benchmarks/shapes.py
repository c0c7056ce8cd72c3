"""One adder layer's shape."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Layer"]


@dataclass(frozen=True)
class Layer:
    """One adder layer: square images and kernels, padding that keeps the size at stride 1.

    Attributes:
        channels: of its input.
        filters: of its output.
        size: height and width of its input.
        kernel: height and width of its kernel.
        stride: in both directions.
        count: how many layers of this shape a network has.
    """

    channels: int
    filters: int
    size: int
    kernel: int
    stride: int
    count: int = 1

    @property
    def out(self) -> int:
        """Height and width of its output."""
        return (self.size - 1) // self.stride + 1

    @property
    def taps(self) -> int:
        """Taps for an image."""
        return self.out**2 * self.filters * self.channels * self.kernel**2

    def __str__(self) -> str:
        stride = f" / {self.stride}" if self.stride > 1 else ""
        kernel = f"{self.kernel}x{self.kernel}{stride}"
        return f"{self.channels:4} x {self.size:3} -> {self.filters:4}, {kernel}"
