"""Random quantized adder convolutions, and what they must give, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import qlinear_adder_conv
from tests.layers import Layer, make_layer

__all__ = ["QLayer", "some_levels"]


def some_levels(rng: np.random.Generator, bits: int) -> tuple[int, ...]:
    """2 to 16 of the integers of so many bits, in order."""
    count = int(rng.integers(2, min(16, 2**bits) + 1))
    return tuple(sorted(rng.choice(2**bits, count, replace=False).tolist()))


@dataclass
class QLayer:
    """One quantized adder convolution."""

    x: NDArray[np.uint8]
    w: NDArray[np.uint8]
    z: NDArray[np.uint8] | None
    a: ConvAttributes
    zero_points: tuple[int, int, int]
    scales: tuple[np.float32, np.float32, np.float32]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    clip_min: float
    bits: int
    levels: tuple[int, ...] = ()

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        height, width = self.a.output_size(self.x.shape[2:], self.w.shape[2:])
        return (self.x.shape[0], self.w.shape[0], height, width)

    @classmethod
    def like(cls, layer: Layer, seed: int, bits: int, levels: tuple[int, ...] = ()) -> QLayer:
        """Random integers in the shapes of a float layer; results use the whole range."""
        rng = np.random.default_rng(seed)
        top = 2**bits
        taps = layer.w[0].size
        x_scale = np.float32(rng.uniform(0.001, 0.1))
        scale = rng.uniform(-2, 2, layer.w.shape[0]).astype(np.float32)
        return cls(
            rng.integers(0, top, layer.x.shape, np.uint8),
            rng.integers(0, top, layer.w.shape, np.uint8),
            None if layer.z is None else rng.integers(0, top, layer.y_shape, np.uint8),
            layer.a,
            tuple(int(v) for v in rng.integers(0, top // 2, 3)),  # type: ignore[arg-type]
            (
                x_scale,
                np.float32(rng.uniform(0.01, 1)),
                np.float32(x_scale * taps**0.5 * rng.uniform(0.5, 2)),
            ),
            scale,
            (scale * x_scale * taps * top / 3).astype(np.float32),
            float(rng.choice([0.0, -np.inf])),
            bits,
            levels,
        )

    @classmethod
    def around(
        cls, borders: NDArray[np.float32], y_scale: float, clip_min: float, levels: Any = ()
    ) -> QLayer:
        """Whose filters give the quotients ``borders``, and floats next to them, by their biases.

        With levels, also what is no number or no finite one.
        """
        scale = np.float32(y_scale)
        with np.errstate(over="ignore"):
            values = borders * scale
        near = [values]
        for direction in (np.float32(-np.inf), np.float32(np.inf)):
            moved = values
            for _ in range(3):
                moved = np.nextafter(moved, direction)
                near.append(moved)
        bias = np.concatenate(near)
        if levels:
            others = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0]
            bias = np.concatenate([bias, np.asarray(others, np.float32)])
        else:
            bias = bias[np.isfinite(bias)]
        layer = make_layer(np.random.default_rng(0), 1, 1, len(bias), (1, 1), (1, 1))
        made = cls.like(layer, 0, 8, levels)
        made.scale[:], made.bias = 0, bias
        made.zero_points = (0, 0, 3)
        made.scales = (np.float32(1), np.float32(1), scale)
        made.clip_min = clip_min
        return made

    def expected(self) -> NDArray[np.uint8]:
        x_zero, z_zero, y_zero = self.zero_points
        x_scale, z_scale, y_scale = self.scales
        z = np.uint8(0) if self.z is None else self.z
        z_zero = 0 if self.z is None else z_zero
        values: Any = (self.x, self.w, x_scale, x_zero, self.scale, self.bias)
        values += (np.asarray(z), z_scale, z_zero, y_scale, y_zero, self.a)
        return qlinear_adder_conv(
            *values, clip_min=self.clip_min, bits=self.bits, levels=self.levels
        )
