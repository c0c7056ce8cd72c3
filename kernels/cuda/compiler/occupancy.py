"""How many blocks of a kernel are resident on one multiprocessor at the same time.

The limits are those of cuda_occupancy.h, which is among CUDA's headers, and of the table "Technical
Specifications per Compute Capability" in NVIDIA's CUDA C++ Programming Guide.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["resident_blocks"]

_WARP = 32
_REGISTERS = 65536
_PARTITIONS = 4
"""Of a multiprocessor, each with a quarter of its registers and warps."""

_REGISTER_UNIT = 256
"""Registers are given to a warp in multiples of it."""


@dataclass(frozen=True)
class _Limits:
    """Of one multiprocessor: resident threads and blocks, KiB of shared memory."""

    threads: int
    blocks: int
    shared_kib: int


_LIMITS = {
    75: _Limits(1024, 16, 64),
    80: _Limits(2048, 32, 164),
    86: _Limits(1536, 16, 100),
    87: _Limits(1536, 16, 164),
    89: _Limits(1536, 24, 100),
    90: _Limits(2048, 32, 228),
    100: _Limits(2048, 32, 228),
    103: _Limits(2048, 32, 228),
    110: _Limits(1536, 24, 228),
    120: _Limits(1536, 24, 100),
    121: _Limits(1536, 24, 100),
}
"""By compute capability times ten."""


def resident_blocks(
    architecture: int, threads: int, registers: int, shared_bytes: int
) -> int | None:
    """Blocks that one multiprocessor takes; None for an architecture whose limits are not known.

    Args:
        architecture: compute capability times ten.
        threads: of a block.
        registers: of a thread.
        shared_bytes: of a block, without what the system takes of it.
    """
    limits = _LIMITS.get(architecture)
    if limits is None:
        return None
    warps = -(-threads // _WARP)
    of_warp = -(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = _REGISTERS // _PARTITIONS // of_warp * _PARTITIONS // warps
    # From 8.0 on the system takes 1 KiB of each block's shared memory.
    unit, reserved = (128, 1024) if architecture >= 80 else (256, 0)
    of_block = -(-(shared_bytes + reserved) // unit) * unit
    by_shared = limits.shared_kib * 1024 // of_block if of_block else limits.blocks
    return min(limits.blocks, limits.threads // (warps * _WARP), by_registers, by_shared)
