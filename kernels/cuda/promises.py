"""What the kernels' machine code must keep on each architecture, which the audit checks."""

from __future__ import annotations

from dataclasses import dataclass

from adder_onnx.kernels.cuda.compiler.nvrtc import compile_target
from adder_onnx.kernels.cuda.launch.selection import select_distances
from adder_onnx.kernels.cuda.launch.variants import (
    ALL_INTEGER_TILES,
    ALL_TILES,
    FEW_PIXELS,
    GRADIENT_DEPTH,
    GRADIENT_TILES,
    INTEGER_CHUNK_TAPS,
    INTEGER_FEW_PIXELS,
    TURN,
    TYPES,
    GradientTile,
    IntegerTile,
    Tile,
    gemm,
    input_gradient,
    integer_gemm,
    taps_per_word,
)

__all__ = ["Promise", "promises"]

_THREAD_OUTPUTS = 8 * 4
"""Pixels by filters, or channels, that a thread of a matrix product computes."""

_INTEGER_THREAD_OUTPUTS = 8 * 8

_SLOT_BOUNDS = {
    ("float32", True): 2.3,
    ("float16", True): 1.3,
    # Taps that are looked up one by one cost an address each.
    ("float32", False): 2.6,
    ("float16", False): 1.5,
}
"""Issue slots per tap, by type and by whether a tile is fetched by pieces."""

_TURING_MANY_PIXELS = {"float32": 2.35, "float16": 1.33}
"""The same for tiles of 256 pixels before sm_80, where a piece takes four instructions more to come
through registers."""

_TURING_EPILOGUE = 400
"""Before sm_80 no minimum of two numbers keeps NaN, and a clip takes four instructions, not two."""

_AHEAD = 220
"""With the three warps that a scheduler has of 384 threads, so many instructions of each take
longer than a load from memory."""

_TURNS_PER_FOLD = {"float32": 64 // TURN, "float16": None}

_GRADIENT_SLOT_BOUNDS = {64: 2.45, 32: 2.5, 16: 2.75}
"""Issue slots per term of the input's gradient, by the channels of a tile. The loop over kernel
positions counts as one with that over filters: with 16 of them, both make a turn at a time."""


@dataclass(frozen=True)
class Promise:
    """What is promised of a kernel whose inner loop adds up taps, or terms of a gradient.

    Attributes:
        arithmetic: names of the instructions that do, suffixes aside: the inner loop is the
            smallest one that has `least` of them.
        least: how many of them it must have, or the loop has not been found.
        taps: that a thread adds up in one turn of the loop.
        slot_bound: instructions by taps, at most: those of the inner loop, and, shared by so many
            of its turns as the next field says, those of the loop around it.
        resident_threads: on one multiprocessor, as __launch_bounds__ says.
        turns: of the inner loop in one of the loop around it; None where it has no loop around it
            or one that is run once.
        ahead: how many of the arithmetic's instructions lie at least between the beginning of a
            load into shared memory and where it must have come; 0 where that is not promised.
        epilogue: instructions behind the last loop, at most; None where that is not promised.
        epilogue_loops: how many loops the epilogue has itself.
    """

    arithmetic: tuple[str, ...]
    least: int
    taps: int
    slot_bound: float
    resident_threads: int
    turns: int | None = None
    ahead: int = 0
    epilogue: int | None = None
    epilogue_loops: int = 0


def promises(architecture: int) -> dict[str, Promise]:
    """By the kernels' expressions, for a compute capability times ten.

    Kernels that are not among them keep no more than that nothing is spilled.
    """
    found = {
        gemm(type_, tile).expression: _gemm(type_, tile, architecture)
        for type_ in TYPES
        for tile in ALL_TILES
    }
    distances = select_distances(compile_target(architecture))
    for tile in ALL_INTEGER_TILES:
        found[integer_gemm(tile, distances).expression] = _integer_gemm(
            tile, distances, architecture
        )
    gradients = {
        input_gradient(tile).expression: _gradient(tile, architecture) for tile in GRADIENT_TILES
    }
    return found | gradients


def _gemm(type_: str, tile: Tile, architecture: int) -> Promise:
    """Two instructions per tap are the floor in float32, one in float16, where they do two at once.

    In float16 the first term of a run costs no addition of its own.
    """
    words = TURN * _THREAD_OUTPUTS
    bound = _SLOT_BOUNDS[type_, tile.vector]
    if architecture < 80 and tile.pixels == 256:
        bound = _TURING_MANY_PIXELS[type_]
    return Promise(
        arithmetic={"float32": ("FADD",), "float16": ("HADD2", "HFMA2")}[type_],
        least=int(0.9 * 2 * words),
        taps=words * taps_per_word(type_),
        slot_bound=bound,
        # Five blocks of 64 threads are what shared memory takes before sm_80.
        resident_threads=320 if architecture < 80 and tile == FEW_PIXELS else 384,
        turns=_TURNS_PER_FOLD[type_],
        ahead=_AHEAD,
        epilogue=_epilogue(tile, architecture),
    )


def _epilogue(tile: Tile, architecture: int) -> int | None:
    if not tile.vector:
        return None  # filters are stored one by one
    return 300 if architecture >= 80 else _TURING_EPILOGUE


def _gradient(tile: GradientTile, architecture: int) -> Promise:
    """Two instructions per term are the floor: an addition that saturates, and a multiply-add."""
    terms = GRADIENT_DEPTH * _THREAD_OUTPUTS
    return Promise(
        arithmetic=("FADD", "FFMA"),
        least=int(0.95 * 2 * terms),
        taps=terms,
        slot_bound=_GRADIENT_SLOT_BOUNDS[tile.channels],
        turns=1,
        # Two blocks of the tile with most pixels are what shared memory takes before sm_80.
        resident_threads=256 if architecture < 80 and tile.channels == 16 else 384,
    )


_INTEGER_INSTRUCTIONS = {
    "Fused": (("VABSDIFF4",), 1),
    "Dotted": (("VABSDIFF4", "VIMNMX", "IDP"), 2),
    "Doubled": (("VIMNMX", "IDP"), 2),
}
"""Names of those that add up four taps, and how many they are at least."""

_INTEGER_SLOT_BOUNDS = {
    # A pixel's taps serve 16 filters alone in the second; in the last words are looked up singly.
    "Fused": (0.33, 0.36, 0.53),
    "Dotted": (1.15, 1.2, 1.35),
    "Doubled": (0.605, 0.63, 0.8),
}
"""Issue slots per tap: by chunks, by chunks for few filters, gathered."""


def _integer_gemm(tile: IntegerTile, distances: str, architecture: int) -> Promise:
    names, least = _INTEGER_INSTRUCTIONS[distances]
    taps = tile.chunks * INTEGER_CHUNK_TAPS * _INTEGER_THREAD_OUTPUTS
    chunks, few, gathered = _INTEGER_SLOT_BOUNDS[distances]
    return Promise(
        arithmetic=names,
        least=taps // 4 * least,
        taps=taps,
        slot_bound=gathered if not tile.vector else few if tile.filters < 32 else chunks,
        resident_threads=_integer_resident(tile, architecture),
        ahead=_AHEAD if tile.vector else 0,
        epilogue=300,
        epilogue_loops=1,
    )


def _integer_resident(tile: IntegerTile, architecture: int) -> int:
    """Threads: 384 where shared memory suffices, which some architectures have less of."""
    if architecture < 80:
        return 192 if tile == INTEGER_FEW_PIXELS else {64: 256, 32: 256, 16: 192}[tile.filters]
    if architecture in (86, 89, 120, 121):
        return 320 if tile == INTEGER_FEW_PIXELS else {64: 384, 32: 384, 16: 256}[tile.filters]
    return 384
