"""How long a matrix product takes: what `selection` compares tiles and shares of sums by.

1. The multiprocessor that has most to do has ⌈blocks · splits / multiprocessors⌉ blocks, as many at
   a time as have `RESIDENT_THREADS`; in the end it may be fewer.
2. Blocks that run at the same time do so at the same pace. A turn of the loop over taps takes
   ``latency`` + ``work`` · warps of a scheduler, these being one at least: where a multiprocessor
   has fewer warps than schedulers, some of these have nothing to do.
3. What a block does before its first turn and after its last takes as long as ``ends`` turns.
4. Where blocks share the sums of a tile, each leaves its own, ``leaving``, and the last one to come
   reads those of all, ``reading`` · splits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["COSTS", "RESIDENT_THREADS", "Costs", "cycles"]

RESIDENT_THREADS = 384
"""Of a multiprocessor (__launch_bounds__). That some architectures have memory for fewer is left
out, so that on GPUs of as many multiprocessors sums are shared alike."""

_SCHEDULER_THREADS = 4 * 32
"""Threads of a warp for each scheduler of a multiprocessor."""


@dataclass(frozen=True)
class Costs:
    """In cycles, but for `ends`.

    Attributes:
        latency: of a turn, however many warps there are.
        work: of a turn, for each warp that a scheduler has.
        ends: what comes before and after the turns, in turns.
        leaving: a block's sums for another one.
        reading: the sums of one block.
    """

    latency: float
    work: float
    ends: float
    leaving: float
    reading: float

    def of_turns(self, size: float) -> Costs:
        """For turns that are so long, of those that these costs are for."""
        return replace(
            self, latency=self.latency * size, work=self.work * size, ends=self.ends / size
        )


COSTS = {
    "float32": Costs(3500, 1600, 1.1, 3100, 830),
    "float16": Costs(6100, 1600, 0.3, 2200, 500),
    "uint8": Costs(2800, 1450, 1.2, 1800, 840),
}
"""Of an H100, fitted to half of the layers of 64 filters and more in
benchmarks/results/nvidia-h100-80gb-hbm3.json, those of uint8 to layers without padding alone, since
these had no other lack; the other half is predicted within 6 %. `python -m benchmarks.cuda.costs`
fits them anew."""


def cycles(
    costs: Costs,
    threads: int,
    blocks: int,
    turns: int,
    splits: int,
    multiprocessors: int,
) -> float:
    """By the rules above, without what every launch takes.

    Args:
        costs: of the type.
        threads: of a block.
        blocks: without splits.
        turns: over all taps.
        splits: blocks that share the sums of a tile.
        multiprocessors: of the GPU.
    """
    resident = max(RESIDENT_THREADS // threads, 1)
    full, rest = divmod(-(-blocks * splits // multiprocessors), resident)
    of_block = -(-turns // splits) + costs.ends
    total = full * of_block * _turn(costs, resident * threads)
    if rest:
        total += of_block * _turn(costs, rest * threads)
    if splits > 1:
        total += (full + (rest > 0)) * costs.leaving
        total += -(-blocks // multiprocessors) * splits * costs.reading
    return total


def _turn(costs: Costs, threads: int) -> float:
    """Of blocks that have so many threads together."""
    return costs.latency + costs.work * max(threads / _SCHEDULER_THREADS, 1)
