"""What the kernels' machine code must keep on each architecture, which the audit checks."""

from __future__ import annotations

from dataclasses import dataclass

from adder_onnx.kernels.cuda.launch.variants import (
    DEPTH,
    GATHERED,
    GEMM_TILES,
    TYPES,
    Tile,
    gemm,
    taps_per_word,
)

__all__ = ["Promise", "promises"]

_THREAD_OUTPUTS = 8 * 4
"""Pixels by filters that a thread of the matrix product computes."""

_SLOT_BOUNDS = {
    ("float32", True): 2.41,
    ("float16", True): 1.4,
    # Taps that are looked up one by one cost an address each.
    ("float32", False): 2.7,
    ("float16", False): 1.6,
}
"""Issue slots per tap, by type and by whether a tile is fetched by chunks."""


@dataclass(frozen=True)
class Promise:
    """What is promised of a kernel whose inner loop adds up taps.

    Attributes:
        arithmetic: names of the instructions that do, suffixes aside: the loop with most of them
            is the inner loop.
        least: how many of them it must have, or the loop has not been found.
        taps: that a thread adds up in one turn of the loop.
        slot_bound: instructions of a turn by its taps, at most.
        resident_threads: on one multiprocessor, as __launch_bounds__ says.
    """

    arithmetic: tuple[str, ...]
    least: int
    taps: int
    slot_bound: float
    resident_threads: int


def promises(architecture: int) -> dict[str, Promise]:
    """By the kernels' expressions, for a compute capability times ten.

    Kernels that are not among them keep no more than that nothing is spilled.
    """
    return {
        gemm(type_, tile).expression: _gemm(type_, tile)
        for type_ in TYPES
        for tile in (*GEMM_TILES, GATHERED)
    }


def _gemm(type_: str, tile: Tile) -> Promise:
    """Two instructions per tap are the floor in float32, one in float16, where they do two at once.

    The first term of a partial sum costs no addition of its own.
    """
    words = DEPTH * _THREAD_OUTPUTS
    return Promise(
        arithmetic={"float32": ("FADD",), "float16": ("HADD2", "HFMA2")}[type_],
        least=int(0.9 * 2 * words),
        taps=words * taps_per_word(type_),
        slot_bound=_SLOT_BOUNDS[type_, tile.vector],
        resident_threads=384,
    )
