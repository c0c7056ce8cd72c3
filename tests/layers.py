"""Random adder convolutions with their epilogues, and what they must give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference

__all__ = ["Layer", "float_layer", "layers", "make_layer"]


@dataclass
class Layer:
    """One adder convolution and all that its epilogue needs."""

    x: NDArray[np.float32]
    w: NDArray[np.float32]
    a: ConvAttributes
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    z: NDArray[np.float32] | None = None
    clip: tuple[float, float] = (-np.inf, np.inf)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        height, width = self.a.output_size(self.x.shape[2:], self.w.shape[2:])
        return (self.x.shape[0], self.w.shape[0], height, width)

    def expected(self) -> NDArray[np.float64]:
        """In float64, from the definition of the operator and of the epilogue."""
        y = reference(self.x, self.w, self.a)
        y = y * self.scale.astype(np.float64)[:, None, None]
        y += self.bias.astype(np.float64)[:, None, None]
        if self.z is not None:
            y += self.z
        return np.clip(y, *self.clip)

    def tolerance(self, roundings: int = 64, unit: float = 2.0**-24) -> NDArray[np.float64]:
        """Bound on the error: roundings of partial sums, then those of result and residual.

        Args:
            roundings: additions in a partial sum.
            unit: the largest relative error of one.
        """
        magnitude = -reference(np.abs(self.x), -np.abs(self.w), self.a)
        taps = int(np.prod(self.w.shape[1:]))
        roundings = min(taps, roundings) + 4
        magnitude = magnitude * np.abs(self.scale.astype(np.float64))[:, None, None]
        magnitude += np.abs(self.bias.astype(np.float64))[:, None, None]
        if self.z is not None:
            magnitude += np.abs(self.z)
        return magnitude * roundings * unit


def make_layer(
    rng: np.random.Generator,
    batch: int,
    channels: int,
    filters: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    **attributes: Any,
) -> Layer:
    a = ConvAttributes(**attributes)
    x = rng.standard_normal((batch, channels, *size)).astype(np.float32)
    w = rng.standard_normal((filters, channels // a.group, *kernel)).astype(np.float32)
    scale = rng.uniform(-2, 2, filters).astype(np.float32)
    bias = rng.standard_normal(filters).astype(np.float32)
    return Layer(x, w, a, scale, bias)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Any shape that the operator takes: remainders of every tile, pads beyond the kernel."""
    group = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = group * draw(st.integers(1, 21))
    filters = group * draw(st.integers(1, 37))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 3)))
    dilations = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    pads = tuple(draw(st.integers(0, 4)) for _ in range(4))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = tuple(
        draw(st.integers(max(1, s - pads[i] - pads[i + 2]), 11)) if s <= 11 else s
        for i, s in enumerate(spans)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer = make_layer(
        rng,
        draw(st.integers(0, 3)),
        channels,
        filters,
        size,  # type: ignore[arg-type]
        kernel,
        strides=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        pads=pads,
        dilations=dilations,
        group=group,
    )
    if draw(st.booleans()):
        layer.z = rng.standard_normal(layer.y_shape).astype(np.float32)
    layer.clip = draw(st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)]))
    return layer


def float_layer(
    weight: NDArray[np.float32],
    scale: ArrayLike,
    bias: ArrayLike,
    *,
    residual: bool = False,
    **attributes: Any,
) -> AdderNode:
    """A float32 adder node from x, and z, to y, with a ReLU."""
    return AdderNode(
        name="layer",
        x="x",
        residual="z" if residual else None,
        y="y",
        type="float32",
        weight=weight,
        scale=np.asarray(scale, np.float32),
        bias=np.asarray(bias, np.float32),
        clip_min=0.0,
        clip_max=float("inf"),
        attributes=ConvAttributes(**attributes),
        fused=(),
    )
