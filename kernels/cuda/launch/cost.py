"""How long a matrix product takes: what `selection` compares tiles and shares of sums by.

1. The multiprocessor that has most to do has ⌈blocks · splits / multiprocessors⌉ blocks, as many at
   a time as have `RESIDENT_THREADS`; in the end it may be fewer.
2. Blocks that run at the same time do so at the same pace. A turn of the loop over taps takes
   ``latency`` + ``work`` for each warp of the scheduler that has most: three blocks of two warps
   are as slow as four.
3. What a block does before its first turn and after its last takes as long as ``ends`` turns.
4. Where blocks share the sums of a tile, each leaves its own, ``leaving`` for four warps of sums,
   and the last one to come reads those of all, ``reading`` · splits: its threads wait for them side
   by side, so that it does not matter how many they are.
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
        leaving: sums for another block, of four warps.
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
    "float32": Costs(3480, 1480, 0.95, 3100, 1110),
    "float16": Costs(5740, 1530, 0.24, 580, 500),
    "uint8": Costs(670, 2040, 1.1, 2470, 700),
}
"""Of an H100: what `python -m benchmarks.cuda.costs` fits to half of the layers in
benchmarks/results/cuda-sweep-nvidia-h100-80gb-hbm3.json. It predicts the grids of the others within
6 to 7 %; what it selects for these takes 1 to 2 % longer than the fastest, at worst 18 %."""


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
        total += (full + (rest > 0)) * costs.leaving * threads / _SCHEDULER_THREADS
        total += -(-blocks // multiprocessors) * splits * costs.reading
    return total


def _turn(costs: Costs, threads: int) -> float:
    """Of blocks that have so many threads together."""
    return costs.latency + costs.work * -(-threads // _SCHEDULER_THREADS)
