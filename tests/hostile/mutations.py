"""Bytes that were damaged at random."""

from __future__ import annotations

import numpy as np

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Data in which one to four places were changed: set, cut out, doubled, filled, or cut off."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not result:
            break
        at = int(rng.integers(len(result)))
        length = int(min(len(result) - at, rng.integers(1, 17)))
        how = rng.integers(7)
        if how == 0:
            result[at] = int(rng.integers(256))
        elif how == 1:
            result[at] = int(rng.choice(_INTERESTING))
        elif how == 2:
            result[at : at + length] = rng.bytes(length)
        elif how == 3:
            del result[at : at + length]
        elif how == 4:
            result[at:at] = result[at : at + length] * int(rng.integers(1, 50))
        elif how == 5:
            value = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]))
            result[at : at + 8] = value.to_bytes(8, "little")
        else:
            del result[at:]
    return bytes(result)
