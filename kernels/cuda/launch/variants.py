"""The instances of the kernels' templates that exist, and what each of them is good for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adder_onnx.kernels.cuda.launch.params import (
    CONV_ARGS,
    GRADIENT_ARGS,
    INTEGER_CONV_ARGS,
    LAYOUT_ARGS,
    PACK_ARGS,
)

__all__ = [
    "ALL_INTEGER_TILES",
    "ALL_TILES",
    "DISTANCES",
    "FEW_PIXELS",
    "GATHERED",
    "GEMM_TILES",
    "GRADIENT_DEPTH",
    "GRADIENT_TILES",
    "INTEGER_CHUNK_TAPS",
    "INTEGER_FEW_PIXELS",
    "INTEGER_GATHERED",
    "INTEGER_GEMM_TILES",
    "KERNELS",
    "PIECE_WORDS",
    "TURN",
    "TYPES",
    "GradientTile",
    "IntegerTile",
    "Kernel",
    "Tile",
    "direct",
    "gemm",
    "input_gradient",
    "input_gradient_direct",
    "integer_direct",
    "integer_gemm",
    "integer_pack",
    "max_pool",
    "nchw_to_nhwc",
    "nhwc_to_nchw",
    "pack",
    "pack_gradient",
    "partial_bytes",
    "taps_per_word",
]

TURN = 32
"""Words in a turn of the loop over taps; packed weights are a multiple of it (kTurn, tile.cuh)."""

PIECE_WORDS = 4
"""Words that are fetched as one: 16 bytes (kPieceWords in tile.cuh)."""

TYPES = ("float32", "float16")
"""Of the float kernels."""

_SCALARS = {"float32": "float", "float16": "__half", "uint8": "Byte"}
_WORDS = {"float32": "float", "float16": "__half2"}


@dataclass(frozen=True)
class Kernel:
    """One instance of a template.

    Attributes:
        expression: its C++ name, for example ``pack_weights<float, float>``.
        threads: in a block.
        args: the structure that it takes.
    """

    expression: str
    threads: int
    args: np.dtype[np.void]

    @property
    def name(self) -> str:
        """The template's name."""
        return self.expression.partition("<")[0]


@dataclass(frozen=True)
class Tile:
    """Output pixels and filters that a block of the matrix product computes.

    Attributes:
        pixels: how many.
        filters: how many.
        vector: whether input channels are fetched by whole pieces; else tap by tap.
    """

    pixels: int
    filters: int
    vector: bool = True

    @property
    def threads(self) -> int:
        return self.pixels // 8 * (self.filters // 4)


@dataclass(frozen=True)
class IntegerTile:
    """Output pixels and filters that a block of the integer matrix product computes.

    Attributes:
        pixels: how many.
        filters: how many.
        chunks: of 16 taps, that it holds at a time.
        vector: whether taps are fetched by whole chunks; else word by word, or tap by tap.
    """

    pixels: int
    filters: int
    chunks: int
    vector: bool = True

    @property
    def threads(self) -> int:
        return self.pixels // 8 * (self.filters // 8)


INTEGER_CHUNK_TAPS = 16
"""Channels that a thread fetches at a time (kChunkTaps in integer/gemm.cuh)."""

INTEGER_GEMM_TILES = (IntegerTile(128, 64, 4), IntegerTile(128, 32, 2), IntegerTile(256, 16, 2))
"""By the filters of a group, most first."""

INTEGER_FEW_PIXELS = IntegerTile(64, 64, 4)
"""In place of the first of them where that would leave multiprocessors without work."""

INTEGER_GATHERED = IntegerTile(128, 64, 4, vector=False)
"""For groups whose input channels are not whole chunks."""

ALL_INTEGER_TILES = (*INTEGER_GEMM_TILES, INTEGER_FEW_PIXELS, INTEGER_GATHERED)

DISTANCES = ("Fused", "Dotted", "Doubled")
"""How absolute differences are added up; integer/distances.cuh says more."""

GEMM_TILES = (Tile(64, 64), Tile(128, 32), Tile(256, 16))
"""By the filters of a group, most first."""

FEW_PIXELS = Tile(32, 64)
"""In place of the first of them where that would leave multiprocessors without work."""

GATHERED = Tile(64, 64, vector=False)
"""For groups whose input channels are not whole pieces."""

ALL_TILES = (*GEMM_TILES, FEW_PIXELS, GATHERED)


@dataclass(frozen=True)
class GradientTile:
    """Input pixels and channels whose gradients a block of the matrix product computes.

    Attributes:
        pixels: how many.
        channels: how many.
    """

    pixels: int
    channels: int

    @property
    def threads(self) -> int:
        return self.pixels // 8 * (self.channels // 4)


GRADIENT_TILES = (GradientTile(64, 64), GradientTile(128, 32), GradientTile(256, 16))
"""By the channels of a group, most first."""

GRADIENT_DEPTH = 16
"""Filters that such a tile holds (kGradientDepth in input_gradient.cuh)."""


def taps_per_word(type_: str) -> int:
    """Taps in 32 bits."""
    return 4 // np.dtype(type_).itemsize


def partial_bytes(type_: str, tile: Tile) -> int:
    """What a block leaves of its sums for another to add up: kParts floats of each (taps.cuh)."""
    return tile.pixels * tile.filters * 4 * {"float32": 2, "float16": 1}[type_]


def gemm(type_: str, tile: Tile) -> Kernel:
    """The matrix product."""
    arguments = f"{_SCALARS[type_]}, {tile.pixels}, {tile.filters}, {str(tile.vector).lower()}"
    return Kernel(f"adder_conv_gemm<{arguments}>", tile.threads, CONV_ARGS)


def direct(type_: str) -> Kernel:
    """One thread for each output."""
    return Kernel(f"adder_conv_direct<{_SCALARS[type_]}>", 128, CONV_ARGS)


def pack(type_: str, *, words: bool) -> Kernel:
    """Packing of weights, in words for the matrix product or in single taps for `direct`."""
    packed = _WORDS[type_] if words else _SCALARS[type_]
    return Kernel(f"pack_weights<{_SCALARS[type_]}, {packed}>", 256, PACK_ARGS)


def integer_gemm(tile: IntegerTile, distances: str) -> Kernel:
    """The integer matrix product, by one of `DISTANCES`."""
    shape = f"{tile.pixels}, {tile.filters}, {tile.chunks}, {str(tile.vector).lower()}"
    expression = f"integer_gemm<{distances}, {shape}>"
    return Kernel(expression, tile.threads, INTEGER_CONV_ARGS)


def integer_direct() -> Kernel:
    """One thread for each output of an integer convolution."""
    return Kernel("integer_direct", 128, INTEGER_CONV_ARGS)


def integer_pack(*, words: bool) -> Kernel:
    """Packing of integer weights, in words of four taps or in single taps for `integer_direct`."""
    packed = "unsigned" if words else "Byte"
    return Kernel(f"pack_integer_weights<{packed}>", 256, PACK_ARGS)


def max_pool() -> Kernel:
    """Max pooling of integers."""
    return Kernel("max_pool", 128, CONV_ARGS)


def nchw_to_nhwc(from_: str, to: str) -> Kernel:
    """The conversion of what enters a chain."""
    return Kernel(f"nchw_to_nhwc<{_SCALARS[from_]}, {_SCALARS[to]}>", 256, LAYOUT_ARGS)


def nhwc_to_nchw(from_: str, to: str) -> Kernel:
    """The conversion of what leaves a chain."""
    return Kernel(f"nhwc_to_nchw<{_SCALARS[from_]}, {_SCALARS[to]}>", 256, LAYOUT_ARGS)


def input_gradient(tile: GradientTile) -> Kernel:
    """The gradient of the input, as a matrix product."""
    return Kernel(f"input_gradient<{tile.pixels}, {tile.channels}>", tile.threads, GRADIENT_ARGS)


def input_gradient_direct() -> Kernel:
    """The gradient of the input, one thread for each element."""
    return Kernel("input_gradient_direct", 128, GRADIENT_ARGS)


def pack_gradient() -> Kernel:
    """Packing of weights for the gradient of the input, as a matrix product."""
    return Kernel("pack_gradient_weights", 256, PACK_ARGS)


KERNELS = (
    *(gemm(t, tile) for t in TYPES for tile in ALL_TILES),
    *(direct(t) for t in TYPES),
    *dict.fromkeys(pack(t, words=words) for t in TYPES for words in (True, False)),
    *(input_gradient(tile) for tile in GRADIENT_TILES),
    input_gradient_direct(),
    pack_gradient(),
    *(integer_gemm(tile, distances) for distances in DISTANCES for tile in ALL_INTEGER_TILES),
    integer_direct(),
    *(integer_pack(words=words) for words in (True, False)),
    max_pool(),
    *(convert(a, b) for convert in (nchw_to_nhwc, nhwc_to_nchw) for a in TYPES for b in TYPES),
    *(convert("uint8", "uint8") for convert in (nchw_to_nhwc, nhwc_to_nchw)),
    nchw_to_nhwc("float32", "uint8"),
    nhwc_to_nchw("uint8", "float32"),
)
"""All of them."""
